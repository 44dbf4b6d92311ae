// Colours of the points of a map, and the legend that explains them.

const PALETTE = ["#4878a8", "#e58606", "#3d9a50", "#cc4a4a", "#8562b5", "#96694c", "#d672b8", "#7d7d7d", "#a3a32f", "#2fa8b8"];
const RAMP = ["#46307f", "#3d4e8a", "#2f6b8e", "#23878d", "#26a384", "#4fbf6b", "#94d741", "#e0d51b"]; // low to high

export function colourOf(data, value) {
  if (data.colour !== "confidence") return PALETTE[value % PALETTE.length];
  return RAMP[Math.min(RAMP.length - 1, Math.floor((value / 65536) * RAMP.length))];
}

export function showLegend(list, data, legend) {
  const entries = data.colour === "confidence"
    ? RAMP.map((colour, place) => [colour, `${(place / RAMP.length).toFixed(2)} and more`])
    : [...new Set(data.value)].sort((a, b) => a - b).slice(0, 60).map((value) => [colourOf(data, value), nameOf(data, legend, value)]);
  list.replaceChildren(...entries.map(([colour, name]) => {
    const item = document.createElement("li");
    const key = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    key.setAttribute("viewBox", "0 0 10 10");
    key.setAttribute("aria-hidden", "true");
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [attribute, value] of Object.entries({ cx: 5, cy: 5, r: 5, fill: colour })) circle.setAttribute(attribute, value);
    key.append(circle);
    item.append(key, name); // as text, never as markup
    return item;
  }));
}

export function nameOf(data, legend, value) {
  return data.colour === "cluster" ? `cluster ${value}` : legend[value] ?? `class ${value}`;
}

