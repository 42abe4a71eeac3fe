// The still picture that stands above a living view in a notebook: it is for where no view can live
// (a notebook that is opened again, a page on paper), and hidden as long as this one does.

const LANDMARKS = [[".dl-dashboard", "main", "Dashboard"],
  [".dl-agreement", "region", "Agreement of two readers"], [".dl-cohort", "region", "Cases"],
  [".dl-training", "region", "Training"]];

// Parts of the page that a screen reader can go to; made of widgets, which have no roles of theirs.
function markLandmarks(el) {
  const mark = () => {
    for (const [kind, role, label] of LANDMARKS) {
      const home = el.closest(kind);
      if (!home || (role === "main" && document.querySelector("main, [role=main]"))) continue;
      home.setAttribute("role", role);
      home.setAttribute("aria-label", label);
      for (const box of home.querySelectorAll(".dl-scroll")) box.tabIndex = 0; // keys scroll it
    }
  };
  [0, 300, 3000].forEach((ms) => setTimeout(mark, ms)); // other parts may come later
}

function hideStill(model) {
  const mark = model.get("mark"); // a piece of the picture's own bytes: no other picture is hidden
  if (!mark) return () => {};
  const hidden = [...document.querySelectorAll("img")].filter((img) => img.src.includes(mark))
    .map((img) => img.closest(".jp-OutputArea-child, .output_area") || img);
  hidden.forEach((node) => { node.style.display = "none"; });
  return () => hidden.forEach((node) => { node.style.display = ""; });
}

