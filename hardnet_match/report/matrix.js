// Which cell of a matrix is pointed at: its two images and their count, by mouse, finger or arrow keys.
"use strict";
document.querySelectorAll("[data-matrix]").forEach((box) => {
  const info = JSON.parse(box.querySelector("script").textContent);
  const cells = box.querySelector(".cells");
  const mark = box.querySelector(".mark");
  const told = box.querySelector("[data-told]");
  const counts = new Uint16Array(Uint8Array.from(atob(info.counts), (letter) => letter.charCodeAt(0)).buffer);
  const side = info.side;
  let [row, column] = [0, 0];
  function show() {
    mark.hidden = false;
    mark.style.left = `${(100 * column) / side}%`;
    mark.style.top = `${(100 * row) / side}%`;
    const unit = info.block > 1 ? `${info.unit} on average` : info.unit;
    told.textContent = row === column && info.block === 1
      ? info.labels[row]
      : `${info.labels[row]} – ${info.labels[column]}: ${counts[row * side + column].toLocaleString("en")} ${unit}`;
  }
  cells.addEventListener("pointermove", point);
  cells.addEventListener("pointerdown", point);
  function point(event) {
    const edge = cells.getBoundingClientRect();
    const inside = (value) => Math.max(0, Math.min(side - 1, Math.floor(value * side)));
    row = inside((event.clientY - edge.top) / edge.height);
    column = inside((event.clientX - edge.left) / edge.width);
    show();
  }
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  cells.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    row = Math.max(0, Math.min(side - 1, row + move[0]));
    column = Math.max(0, Math.min(side - 1, column + move[1]));
    show();
  });
  mark.style.width = mark.style.height = `${100 / side}%`;
  box.dataset.ready = "";
});
