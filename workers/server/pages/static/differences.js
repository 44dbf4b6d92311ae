// The map of the differences of two builds: int8 scores on a grid (see difference_bytes), in the colours of its legend.

const canvas = document.getElementById("differences");
const FULL_SCORE = 8 / 127; // standard errors of one step
const EMPTY = -128;

async function load() {
  const answer = await fetch(canvas.dataset.map);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const buffer = await answer.arrayBuffer();
  const end = new Uint8Array(buffer).indexOf(10);
  const facts = JSON.parse(new TextDecoder().decode(buffer.slice(0, end)));
  if (!facts.grid) return;
  const scores = new Int8Array(buffer.slice(end + 1));
  paint(facts.grid, scores);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint(facts.grid, scores));
}

function colours() {
  const of = (name) => getComputedStyle(document.querySelector(`.swatch.${name}`)).backgroundColor.match(/\d+/g).slice(0, 3).map(Number);
  return { same: of("same"), more: [1, 2, 3].map((step) => of(`more${step}`)), less: [1, 2, 3].map((step) => of(`less${step}`)) };
}

function paint(grid, scores) {
  const { same, more, less } = colours();
  canvas.width = canvas.height = grid;
  const image = new ImageData(grid, grid);
  scores.forEach((score, place) => {
    if (score === EMPTY) return;
    const step = Math.min(3, Math.floor(Math.abs(score) * FULL_SCORE + 0.01));
    const colour = step === 0 ? same : (score > 0 ? more : less)[step - 1];
    const row = grid - 1 - Math.floor(place / grid); // rows of the answer begin at the bottom
    image.data.set([...colour, 255], 4 * (row * grid + (place % grid)));
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.dataset.drawn = "true";
}

if (canvas) load();
