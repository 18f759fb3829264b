// Points and cameras of a reconstruction, to turn about: a plain canvas, so that it works wherever a page does.
"use strict";
document.querySelectorAll("[data-space]").forEach((box) => {
  const info = JSON.parse(box.querySelector("script").textContent);
  const canvas = box.querySelector("canvas");
  const told = box.querySelector("[data-told]");
  const context = canvas.getContext("2d", { alpha: false });
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const places = new Uint16Array(bytes(info.points));
  const rgb = new Uint8Array(bytes(info.colours));
  const cameras = new Float32Array(bytes(info.cameras)); // centre, right, down, ahead, half width, half height
  const EACH = 14;
  const count = places.length / 3;
  const xyz = new Float32Array(places.length);
  for (let i = 0; i < places.length; i++) xyz[i] = info.low[i % 3] + info.step[i % 3] * places[i];
  const inks = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    inks[i] = (255 << 24) | (rgb[3 * i + 2] << 16) | (rgb[3 * i + 1] << 8) | rgb[3 * i];
  }

  const start = { yaw: info.yaw, pitch: info.pitch, target: [0, 0, 0], distance: 3 };
  const at = { ...start, target: [...start.target] };
  let width = 0, height = 0, ratio = 1, focal = 1, image = null, pixels = null, depths = null;
  let asked = false, chosen = -1, size = 1, withCameras = true;
  let ground = 0, line = "#888", strong = "#000";
  const reach = info.reach; // how long a camera is drawn

  const basis = () => {
    const [sy, cy, sp, cp] = [Math.sin(at.yaw), Math.cos(at.yaw), Math.sin(at.pitch), Math.cos(at.pitch)];
    return { right: [cy, -sy, 0], ahead: [sy * cp, cy * cp, -sp], up: [sy * sp, cy * sp, cp] };
  };
  const dot = (a, x, y, z) => a[0] * x + a[1] * y + a[2] * z;
  const onScreen = (b, x, y, z) => {
    const [dx, dy, dz] = [x - at.target[0], y - at.target[1], z - at.target[2]];
    const depth = dot(b.ahead, dx, dy, dz) + at.distance;
    return [
      width / 2 + (focal * dot(b.right, dx, dy, dz)) / depth,
      height / 2 - (focal * dot(b.up, dx, dy, dz)) / depth,
      depth,
    ];
  };
  const share = (values, part) => values.sort((a, b) => a - b)[Math.round(part * (values.length - 1))];

  // Cameras and the points around the middle in view, what lies far behind them not: each round moves them to the middle and goes as near as they fit.
  function fit() {
    Object.assign(at, start, { target: [0, 0, 0], distance: 4 });
    const b = basis();
    const along = (from, k) => [b.right, b.up, b.ahead].map((axis) => dot(axis, from[k], from[k + 1], from[k + 2]));
    const points = [], eyes = [];
    const away = (i) => Math.hypot(xyz[3 * i], xyz[3 * i + 1], xyz[3 * i + 2]);
    const some = Array.from({ length: Math.min(count, 3000) }, (_, i) => Math.floor((i * count) / Math.min(count, 3000)));
    const usual = share(some.map(away), 0.5);
    for (const i of some) if (away(i) <= 2.5 * usual) points.push(along(xyz, 3 * i));
    for (let i = 0; i < cameras.length; i += EACH) {
      for (const place of [cameras.slice(i, i + 3), ...corners(i)]) eyes.push(along(place, 0));
    }
    const middle = [0, 0];
    for (let round = 0; round < 12; round++) {
      const fill = [0, 1].map((axis) => {
        const place = (p) => (focal * (p[axis] - middle[axis])) / Math.max(p[2] + at.distance, 0.1);
        const [near, all] = [points, eyes].map((some) => some.map(place));
        const low = Math.min(share(near, 0.02), share(all, 0.02)), high = Math.max(share(near, 0.98), share(all, 0.98));
        middle[axis] += ((low + high) / 2 / focal) * at.distance;
        return (high - low) / (axis ? 0.84 * height : 0.88 * width);
      });
      at.distance = Math.min(Math.max(at.distance * Math.min(Math.max(...fill, 0.6), 1.6), 0.5), 60);
    }
    at.target = [0, 1, 2].map((i) => b.right[i] * middle[0] + b.up[i] * middle[1]);
  }

  function colours() {
    const style = getComputedStyle(box);
    const hex = parseInt(style.getPropertyValue("--space").trim().slice(1), 16);
    ground = (255 << 24) | ((hex & 255) << 16) | (hex & 0xff00) | (hex >> 16);
    line = style.getPropertyValue("--space-line").trim();
    strong = style.getPropertyValue("--space-strong").trim();
  }

  function measure() {
    ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (!w || !h || (w === width && h === height)) return;
    const first = !width;
    canvas.width = width = w;
    canvas.height = height = h;
    focal = 1.1 * Math.min(width, height * 1.4);
    image = context.createImageData(width, height);
    pixels = new Uint32Array(image.data.buffer);
    depths = new Float32Array(width * height);
    if (first) fit();
    draw(); // at once: a canvas is empty once its size has changed
  }

  function redraw() {
    if (!asked) {
      asked = true;
      requestAnimationFrame(() => { asked = false; draw(); });
    }
  }

  function draw() {
    if (!pixels) return;
    pixels.fill(ground);
    depths.fill(Infinity);
    const b = basis();
    let drawn = 0;
    const unit = size * ratio * Math.min(3, Math.max(0.9, Math.sqrt(2500 / Math.max(count, 1)) + 0.8));
    for (let i = 0, k = 0; i < count; i++, k += 3) {
      const [sx, sy, depth] = onScreen(b, xyz[k], xyz[k + 1], xyz[k + 2]);
      if (!(depth > 0.02)) continue;
      const side = Math.max(1, Math.min(9, Math.round(unit * Math.sqrt(at.distance / depth) * 1.2)));
      const x0 = Math.round(sx - side / 2), y0 = Math.round(sy - side / 2);
      if (x0 < 0 || y0 < 0 || x0 + side > width || y0 + side > height) continue;
      drawn++;
      for (let y = y0; y < y0 + side; y++) {
        for (let x = x0, p = y * width + x0; x < x0 + side; x++, p++) {
          if (depth < depths[p]) {
            depths[p] = depth;
            pixels[p] = inks[i];
          }
        }
      }
    }
    context.putImageData(image, 0, 0);
    if (withCameras) drawCameras(b);
    box.dataset.drawn = drawn;
  }

  function corners(k) {
    const [hw, hh] = [cameras[k + 12] * reach, cameras[k + 13] * reach];
    return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([u, v]) => [0, 1, 2].map(
      (axis) => cameras[k + axis] + cameras[k + 9 + axis] * reach
        + cameras[k + 3 + axis] * u * hw + cameras[k + 6 + axis] * v * hh));
  }

  function drawCameras(b) {
    context.lineJoin = "round";
    const order = [...Array(cameras.length / EACH).keys()].filter((place) => place !== chosen);
    for (const place of chosen < 0 ? order : [...order, chosen]) {
      const k = place * EACH;
      const eye = onScreen(b, cameras[k], cameras[k + 1], cameras[k + 2]);
      const rim = corners(k).map((corner) => onScreen(b, ...corner));
      if (eye[2] < 0.05 || rim.some((corner) => corner[2] < 0.05)) continue;
      context.beginPath();
      rim.forEach(([x, y], turn) => {
        context.moveTo(eye[0], eye[1]);
        context.lineTo(x, y);
        context.lineTo(rim[(turn + 1) % 4][0], rim[(turn + 1) % 4][1]);
      });
      context.strokeStyle = place === chosen ? strong : line;
      context.lineWidth = (place === chosen ? 2.2 : 1.1) * ratio;
      context.stroke();
      if (place === chosen) {
        context.fillStyle = strong;
        context.globalAlpha = 0.25;
        context.beginPath();
        rim.forEach(([x, y], turn) => (turn ? context.lineTo(x, y) : context.moveTo(x, y)));
        context.fill();
        context.globalAlpha = 1;
      }
    }
  }

  const total = cameras.length / EACH;
  function choose(place) {
    chosen = place;
    told.textContent = place < 0 ? info.hint : `${info.names[place]} (${place + 1} of ${total})`;
    box.querySelector("[data-do=stand]").disabled = place < 0;
    redraw();
  }
  function near(x, y) {
    const b = basis();
    let best = -1, least = 16 * ratio;
    for (let place = 0; place < total && withCameras; place++) {
      const k = place * EACH;
      for (const far of [0, 0.6]) {
        const [sx, sy, depth] = onScreen(b, ...[0, 1, 2].map((i) => cameras[k + i] + cameras[k + 9 + i] * reach * far));
        const off = Math.hypot(sx - x, sy - y);
        if (depth > 0.05 && off < least) [best, least] = [place, off];
      }
    }
    return best;
  }
  function stand() {
    if (chosen < 0) return;
    const k = chosen * EACH;
    const ahead = [cameras[k + 9], cameras[k + 10], cameras[k + 11]];
    at.pitch = -Math.asin(Math.max(-1, Math.min(1, ahead[2])));
    at.yaw = Math.atan2(ahead[0], ahead[1]);
    const away = Math.max(0.4, Math.hypot(cameras[k], cameras[k + 1], cameras[k + 2]));
    at.distance = away;
    at.target = [0, 1, 2].map((i) => cameras[k + i] + ahead[i] * away);
    redraw();
  }
  function turn(dx, dy) {
    at.yaw += dx * 0.006;
    at.pitch = Math.max(-1.55, Math.min(1.55, at.pitch + dy * 0.006));
    redraw();
  }
  function shift(dx, dy) {
    const b = basis(), scale = (at.distance / focal) * ratio;
    for (let i = 0; i < 3; i++) at.target[i] += (b.up[i] * dy - b.right[i] * dx) * scale;
    redraw();
  }
  function zoom(factor) {
    at.distance = Math.max(0.05, Math.min(200, at.distance * factor));
    redraw();
  }

  const actions = {
    reset: () => { fit(); choose(-1); },
    closer: () => zoom(0.8),
    farther: () => zoom(1.25),
    larger: () => { size = Math.min(4, size * 1.3); redraw(); },
    smaller: () => { size = Math.max(0.4, size / 1.3); redraw(); },
    before: () => choose((chosen + total - (chosen < 0 ? 0 : 1)) % total),
    after: () => choose((chosen + 1) % total),
    stand,
    cameras: (button) => {
      withCameras = !withCameras;
      button.setAttribute("aria-pressed", withCameras);
      redraw();
    },
  };
  box.querySelectorAll("[data-do]").forEach((button) => {
    button.addEventListener("click", () => actions[button.dataset.do](button));
  });
  const keys = {
    ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    "+": actions.closer, "=": actions.closer, "-": actions.farther, "0": actions.reset, Home: actions.reset,
    n: actions.after, p: actions.before, Enter: stand, "]": actions.larger, "[": actions.smaller,
  };
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (typeof act === "function") act();
    else if (event.shiftKey) shift(act[0] * -30, act[1] * -30);
    else turn(act[0] * 20, act[1] * 20);
  });

  const held = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, [event.clientX, event.clientY]);
    if (held.size === 1) moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    moved += Math.abs(dx) + Math.abs(dy);
    if (held.size === 1) {
      if (event.shiftKey || event.ctrlKey || event.buttons & 6) shift(dx, dy);
      else turn(dx, dy);
    } else {
      const other = [...held].find(([id]) => id !== event.pointerId)[1];
      const [was, is] = [before, now].map((p) => Math.hypot(p[0] - other[0], p[1] - other[1]));
      if (was > 5 && is > 5) zoom(was / is);
      shift(dx / 2, dy / 2);
    }
    held.set(event.pointerId, now);
  });
  const letGo = (event) => {
    if (held.delete(event.pointerId) && moved < 6 && event.type === "pointerup") {
      const edge = canvas.getBoundingClientRect();
      choose(near((event.clientX - edge.left) * ratio, (event.clientY - edge.top) * ratio));
    }
  };
  canvas.addEventListener("pointerup", letGo);
  canvas.addEventListener("pointercancel", letGo);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  // The wheel scrolls the page until the view has been taken up: nobody should be caught in it.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004));
  }, { passive: false });

  colours();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colours(); redraw(); });
  new ResizeObserver(measure).observe(canvas);
  measure();
  choose(-1);
});
