// The map of a build on a 2D canvas: density and points, zoom and pan (d3-zoom), a lasso that becomes the region filter.

import { select, zoom, zoomIdentity } from "./d3-zoom.min.js";
import { colourOf, nameOf, showLegend } from "./map_colours.js";
import { fetchMap } from "./map_data.js";

const MAX_CORNERS = 120;
const CLICK_PIXELS = 8;

const canvas = document.getElementById("map");
const tip = document.getElementById("map-tip");
const status = document.getElementById("map-status");
const lassoButton = document.getElementById("map-lasso");
const base = canvas.dataset.base;
const legend = JSON.parse(canvas.dataset.legend);
const dark = matchMedia("(prefers-color-scheme: dark)");

let data = null; // what fetchMap returned
let density = null; // the grid as an image
let transform = zoomIdentity;
let lasso = null; // corners in shares of the frame, while one is drawn
let lassoOn = false;
let loading = null;
let frameAsked = false;

const size = () => [canvas.clientWidth, canvas.clientHeight];
const toScreen = (x, y) => {
  const [width, height] = size();
  return [transform.applyX(x * width), transform.applyY(y * height)];
};
const toShare = (px, py) => {
  const [width, height] = size();
  return [transform.invertX(px) / width, transform.invertY(py) / height];
};

// Reading

async function load() {
  loading?.abort();
  loading = new AbortController();
  status.textContent = "The map is on its way.";
  try {
    data = await fetchMap(`${base}/map${location.search}`, loading.signal);
  } catch (error) {
    if (error.name !== "AbortError") status.textContent = `The map could not be read: ${error.message}.`;
    return;
  }
  density = data.frame && data.grid ? densityImage(data) : null;
  const shown = data.points.toLocaleString("en");
  if (!data.frame) status.textContent = "This build has no map.";
  else if (data.selected === data.points) status.textContent = `${shown} points.`;
  else status.textContent = `${shown} of ${data.selected.toLocaleString("en")} selected samples as points; shading shows all of them.`;
  canvas.dataset.points = data.points;
  showLegend(document.getElementById("map-legend"), data, legend);
  draw();
}

function densityImage({ grid, cells }) {
  const image = new ImageData(grid, grid);
  const shade = dark.matches ? 200 : 60;
  for (let row = 0; row < grid; row++) {
    for (let column = 0; column < grid; column++) {
      const at = 4 * ((grid - 1 - row) * grid + column); // rows of the answer begin at the bottom
      image.data[at] = image.data[at + 1] = image.data[at + 2] = shade;
      image.data[at + 3] = cells[row * grid + column] * 0.45;
    }
  }
  const held = document.createElement("canvas");
  held.width = held.height = grid;
  held.getContext("2d").putImageData(image, 0, 0);
  return held;
}

// Drawing

function draw() {
  if (frameAsked) return;
  frameAsked = true;
  requestAnimationFrame(() => {
    frameAsked = false;
    paint();
  });
}

function paint() {
  const [width, height] = size();
  const ratio = Math.min(devicePixelRatio || 1, 2);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  if (density) {
    const [left, top] = toScreen(0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(density, left, top, width * transform.k, height * transform.k);
  }
  if (data) paintPoints(context, width, height);
  paintRegion(context);
}

function paintPoints(context, width, height) {
  const side = Math.min(6, (data.points > 20000 ? 1.5 : 2.5) * Math.sqrt(transform.k));
  for (const [colour, places] of byColour()) {
    context.fillStyle = colour;
    for (const place of places) {
      const px = transform.applyX(data.x[place] * width);
      const py = transform.applyY(data.y[place] * height);
      if (px > -side && py > -side && px < width + side && py < height + side) {
        context.fillRect(px - side / 2, py - side / 2, side, side);
      }
    }
  }
}

function byColour() {
  if (!data.groups) {
    data.groups = new Map();
    data.value.forEach((value, place) => {
      const colour = colourOf(data, value);
      if (!data.groups.has(colour)) data.groups.set(colour, []);
      data.groups.get(colour).push(place);
    });
  }
  return data.groups;
}

function paintRegion(context) {
  const corners = lasso ?? regionCorners();
  if (!corners || corners.length < 2) return;
  context.beginPath();
  corners.forEach(([x, y], place) => context[place ? "lineTo" : "moveTo"](...toScreen(x, y)));
  if (!lasso) context.closePath();
  context.lineWidth = 2;
  context.strokeStyle = dark.matches ? "#ffffff" : "#111111";
  context.setLineDash(lasso ? [] : [6, 4]);
  context.stroke();
  context.setLineDash([]);
}

function regionCorners() {
  const text = new URLSearchParams(location.search).get("region");
  if (!text || !data?.frame) return null;
  const { left, bottom, right, top } = data.frame;
  const shares = text.trim().split(/\s+/).map((word) => word.split(",").map(Number));
  return shares.map(([x, y]) => [(x - left) / (right - left), 1 - (y - bottom) / (top - bottom)]);
}

// Selecting

function selectRegion(shares) {
  if (!data?.frame || shares.length < 3) return;
  const { left, bottom, right, top } = data.frame;
  const step = Math.max(1, Math.ceil(shares.length / MAX_CORNERS));
  const corners = shares.filter((_, place) => place % step === 0);
  const number = (value) => Number(value.toPrecision(6)).toString();
  const text = corners.map(([x, y]) => `${number(left + x * (right - left))},${number(bottom + (1 - y) * (top - bottom))}`).join(" ");
  const form = document.getElementById("filters");
  if (!form) return;
  form.elements.region.value = text;
  form.requestSubmit();
}

function setLasso(on) {
  lassoOn = on;
  lassoButton.setAttribute("aria-pressed", String(on));
  canvas.classList.toggle("lasso", on);
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function nearest(px, py) {
  if (!data) return null;
  const [width, height] = size();
  let found = null;
  let best = CLICK_PIXELS * CLICK_PIXELS;
  for (let point = 0; point < data.points; point++) {
    const dx = transform.applyX(data.x[point] * width) - px;
    const dy = transform.applyY(data.y[point] * height) - py;
    const distance = dx * dx + dy * dy;
    if (distance < best) {
      best = distance;
      found = point;
    }
  }
  return found;
}

// Pointer, keys, buttons

const zooming = zoom()
  .scaleExtent([1, 64])
  .filter((event) => !event.button && !(event.type !== "wheel" && (lassoOn || event.shiftKey)))
  .on("zoom", (event) => {
    transform = event.transform;
    tip.hidden = true;
    draw();
  });
const surface = select(canvas).call(zooming).on("dblclick.zoom", null);

canvas.addEventListener("pointerdown", (event) => {
  if (event.button || !(lassoOn || event.shiftKey)) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  lasso = [toShare(...place(event))];
});
canvas.addEventListener("pointermove", (event) => {
  if (lasso) {
    lasso.push(toShare(...place(event)));
    draw();
    return;
  }
  const [px, py] = place(event);
  const point = event.pointerType === "touch" || event.buttons ? null : nearest(px, py);
  tip.hidden = point === null;
  if (point === null) return;
  tip.textContent = `sample ${data.index[point]}` + (data.colour === "confidence" ? `, confidence ${(data.value[point] / 65535).toFixed(2)}` : `, ${nameOf(data, legend, data.value[point])}`);
  tip.style.left = `${Math.min(px + 12, size()[0] * 0.6)}px`;
  tip.style.top = `${py + 12}px`;
});
canvas.addEventListener("pointerleave", () => (tip.hidden = true));
canvas.addEventListener("pointerup", () => {
  if (!lasso) return;
  const corners = lasso;
  lasso = null;
  setLasso(false);
  selectRegion(corners);
  draw();
});
canvas.addEventListener("pointercancel", () => {
  lasso = null;
  draw();
});
canvas.addEventListener("click", (event) => {
  if (event.shiftKey) return;
  const point = nearest(...place(event));
  if (point !== null) location.assign(`${base}/samples/${data.index[point]}`);
});
canvas.addEventListener("keydown", (event) => {
  const [width, height] = size();
  const moves = { ArrowLeft: [width / 8, 0], ArrowRight: [-width / 8, 0], ArrowUp: [0, height / 8], ArrowDown: [0, -height / 8] };
  if (moves[event.key]) zooming.translateBy(surface, ...moves[event.key].map((each) => each / transform.k));
  else if (event.key === "+" || event.key === "=") zooming.scaleBy(surface, 1.5);
  else if (event.key === "-") zooming.scaleBy(surface, 1 / 1.5);
  else if (event.key === "Escape") {
    lasso = null;
    setLasso(false);
    draw();
  } else return;
  event.preventDefault();
});
lassoButton.addEventListener("click", () => setLasso(!lassoOn));
document.getElementById("map-in").addEventListener("click", () => zooming.scaleBy(surface, 1.5));
document.getElementById("map-out").addEventListener("click", () => zooming.scaleBy(surface, 1 / 1.5));
document.getElementById("map-reset").addEventListener("click", () => zooming.transform(surface, zoomIdentity));
document.getElementById("map-region").addEventListener("click", () => {
  const [width, height] = size();
  const [left, top] = toShare(0, 0);
  const [right, bottom] = toShare(width, height);
  selectRegion([[left, bottom], [right, bottom], [right, top], [left, top]]);
});

// Addresses of views have no parameters that say nothing.

const DEFAULTS = { confidence: "", density: "", where: "", region: "", refused: "all", order: "index", colour: "class" };
document.body.addEventListener("htmx:configRequest", (event) => {
  const parameters = event.detail.parameters;
  for (const [name, value] of Object.entries(DEFAULTS)) if (parameters[name] === value) delete parameters[name];
});

// Redrawing

document.body.addEventListener("htmx:pushedIntoHistory", load);
document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id === "view" && !data && document.getElementById("filters")) load();
});
new ResizeObserver(draw).observe(canvas);
dark.addEventListener("change", () => {
  if (data?.frame && data.grid) density = densityImage(data);
  draw();
});
if (document.getElementById("filters")) load();
else status.textContent = "The map follows when the columns are gathered.";
