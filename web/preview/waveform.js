// A sound as it is drawn: its waveform, the place that is being played, and a click to go elsewhere.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number>} attributes
 */
function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}

/**
 * One closed line around the peaks: along the highest samples, and back along the lowest.
 * @param {[number, number][]} peaks
 */
function outline(peaks) {
  const above = peaks.map(([, high], at) => `${at + 0.5} ${-high}`);
  const below = peaks.map(([low], at) => `${at + 0.5} ${-low}`).reverse();
  return `M ${[...above, ...below].join(" L ")} Z`;
}

/**
 * @param {[number, number][]} peaks the lowest and the highest sample, -1 to 1, of stretches of time
 * @param {HTMLAudioElement} player plays the same sound
 */
export function drawWaveform(peaks, player) {
  const picture = draw("svg", { viewBox: `0 -1 ${peaks.length} 2`, preserveAspectRatio: "none" });
  picture.classList.add("vivace-waveform");
  picture.ariaHidden = "true"; // the player is what can be operated by keyboard
  const place = draw("line", { y1: -1, y2: 1, x1: 0, x2: 0, class: "vivace-playing" });
  picture.append(draw("path", { d: outline(peaks) }), place);
  const follow = () => {
    const x = player.duration ? (player.currentTime / player.duration) * peaks.length : 0;
    place.setAttribute("x1", String(x));
    place.setAttribute("x2", String(x));
  };
  for (const event of ["timeupdate", "seeked"]) player.addEventListener(event, follow);
  picture.addEventListener("click", (event) => {
    const { left, width } = picture.getBoundingClientRect();
    if (player.duration && width) player.currentTime = ((event.clientX - left) / width) * player.duration;
  });
  return picture;
}
