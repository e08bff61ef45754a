// The pictures of the tab Inspect: choose a position by click or keys, move the line of a swipe.
const STEP = 0.02;
let cut = 50, at = null, focused = null;

const within = (share) => Math.min(1, Math.max(0, share));
const pictureOf = (event) => event.target.closest && event.target.closest("svg[tabindex]");

function choose(x, y) {
  at = { x: within(x), y: within(y) };
  trigger("select", { index: [at.x, at.y], value: "" });
}

function ring(svg) {
  const box = svg.viewBox.baseVal, mark = svg.querySelector(".lk-cursor") ||
    svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "circle"));
  mark.setAttribute("class", "lk-cursor");
  mark.setAttribute("cx", at.x * box.width);
  mark.setAttribute("cy", at.y * box.height);
  mark.setAttribute("r", Math.max(box.width, box.height) / 40);
}

function settle() {
  element.querySelectorAll(".lk-swipe").forEach((swipe) => {
    swipe.style.setProperty("--cut", cut + "%");
    swipe.querySelector(".lk-cut").value = cut;
  });
  if (focused === "cut") element.querySelector(".lk-cut")?.focus();
  else if (focused) element.querySelector(`[data-map="${CSS.escape(focused)}"] svg`)?.focus();
}

element.addEventListener("click", (event) => {
  const svg = pictureOf(event);
  if (!svg) return;
  const box = svg.getBoundingClientRect();
  choose((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
});
element.addEventListener("keydown", (event) => {
  const svg = pictureOf(event);
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (!svg) return;
  if (event.key in move) {
    at = at || { x: 0.5, y: 0.5 };
    const [dx, dy] = move[event.key];
    at = { x: within(at.x + dx * STEP), y: within(at.y + dy * STEP) };
    ring(svg);
  } else if (event.key === "Enter" || event.key === " ") {
    choose(at ? at.x : 0.5, at ? at.y : 0.5);
  } else return;
  event.preventDefault();
});
element.addEventListener("input", (event) => {
  if (!event.target.matches(".lk-cut")) return;
  cut = event.target.value;
  settle();
});
element.addEventListener("focusin", (event) => {
  const panel = event.target.closest(".lk-panel");
  focused = event.target.matches(".lk-cut") ? "cut" : panel && panel.dataset.map;
});
element.addEventListener("focusout", (event) => {
  if (event.relatedTarget) focused = null;
});
watch("value", settle);
