// A picture whose points can be found: by pointer (tooltip, click) and by arrow keys and Enter.
// Python draws the picture and says where its points lie; nothing is computed here.

const REACH = 9; // pixels from a point at which the pointer finds it

function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "dl-points";
  const picture = document.createElement("img");
  const ring = document.createElement("div");
  ring.className = "dl-points-ring";
  const kept = document.createElement("div"); // around the picked case, in each panel
  kept.className = "dl-points-kept";
  const busy = document.createElement("div");
  busy.className = "dl-points-busy";
  busy.setAttribute("role", "status");
  const tip = document.createElement("div");
  tip.className = "dl-points-tip";
  tip.setAttribute("role", "status");
  box.append(picture, kept, ring, tip, busy);
  el.append(box);
  const showStill = hideStill(model);
  markLandmarks(el);
  let address = null;
  let current = -1; // number of the point that keys have reached

  function draw() {
    if (address) URL.revokeObjectURL(address);
    address = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    picture.src = address;
    picture.alt = model.get("alt");
    if (model.get("points").length) { // something to be reached by keys
      box.tabIndex = 0;
      box.setAttribute("role", "application");
      box.setAttribute("aria-label", model.get("alt") + " Arrow keys go from case to case.");
    } else for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
    current = -1;
    hide();
    keep();
  }

  // The picked case stays ringed wherever it was picked.
  function keep() {
    const picked = model.get("picked");
    kept.replaceChildren(...model.get("points").filter(([, , number]) => number === picked)
      .map(([x, y]) => {
        const mark = document.createElement("i");
        mark.style.left = `${100 * x}%`;
        mark.style.top = `${100 * y}%`;
        return mark;
      }));
    box.dataset.picked = picked < 0 ? "" : model.get("labels")[String(picked)] || "";
  }

  function wait() {
    busy.textContent = model.get("busy");
    box.classList.toggle("dl-busy", model.get("busy") !== "");
  }

  function hide() {
    ring.style.display = tip.style.display = "none";
    delete box.dataset.case;
  }

  function show(number) {
    const point = model.get("points")[number];
    const label = model.get("labels")[String(point[2])];
    const x = point[0] * picture.clientWidth;
    const y = point[1] * picture.clientHeight;
    ring.style.display = tip.style.display = "block";
    ring.style.left = `${x}px`;
    ring.style.top = `${y}px`;
    tip.textContent = label;
    const left = x > picture.clientWidth / 2;
    tip.style.left = left ? "auto" : `${x + 12}px`;
    tip.style.right = left ? `${picture.clientWidth - x + 12}px` : "auto";
    tip.style.top = `${Math.max(0, y - 14)}px`;
    box.dataset.case = label;
  }

  function nearest(event) {
    const frame = picture.getBoundingClientRect();
    const across = event.clientX - frame.left;
    const down = event.clientY - frame.top;
    let best = -1;
    let least = REACH * REACH;
    model.get("points").forEach(([x, y], number) => {
      const far = (x * frame.width - across) ** 2 + (y * frame.height - down) ** 2;
      if (far <= least) [best, least] = [number, far];
    });
    return best;
  }

  function pick(number) {
    model.send({ kind: "pick", case: model.get("points")[number][2] });
  }

  box.addEventListener("mousemove", (event) => {
    const number = nearest(event);
    box.style.cursor = number < 0 ? "default" : "pointer";
    if (number < 0) hide();
    else show(number);
  });
  box.addEventListener("mouseleave", hide);
  box.addEventListener("click", (event) => {
    const number = nearest(event);
    if (number >= 0) pick(number);
  });
  box.addEventListener("keydown", (event) => {
    const n = model.get("points").length;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    else if (event.key === "Enter" && current >= 0) pick(current);
    else if (step && n) show((current = (current + step + n) % n));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  model.on("change:png", draw);
  model.on("change:picked", keep);
  model.on("change:busy", wait);
  draw();
  wait();
  return () => {
    model.off("change:png", draw);
    model.off("change:picked", keep);
    model.off("change:busy", wait);
    showStill();
    if (address) URL.revokeObjectURL(address);
  };
}

export default { render };
