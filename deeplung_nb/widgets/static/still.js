// The still picture that stands above a living view in a notebook: it is for where no view can live
// (a notebook that is opened again, a page on paper), and hidden as long as this one does.

function hideStill(model) {
  const mark = model.get("mark"); // a piece of the picture's own bytes: no other picture is hidden
  if (!mark) return () => {};
  const hidden = [...document.querySelectorAll("img")].filter((img) => img.src.includes(mark))
    .map((img) => img.closest(".jp-OutputArea-child, .output_area") || img);
  hidden.forEach((node) => { node.style.display = "none"; });
  return () => hidden.forEach((node) => { node.style.display = ""; });
}

