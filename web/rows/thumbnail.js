// The preview image of a LoRA, beside the list that it belongs to.

import { make } from "../dom.js";
import { previewUrl } from "./server.js";

const DELAY = 120; // ms: no images while the user moves through the list
const GAP = 20; // CSS pixels between list and image, and to the edge of the window
const MAX_WIDTH = 220;

export class Thumbnail {
  /** @param {HTMLElement} host */
  constructor(host) {
    this.host = host;
    /** @type {string | null} */
    this.name = null;
    this.timer = 0;
    this.image = make("img", { className: "vivace-thumbnail", alt: "", hidden: true });
    this.image.addEventListener("load", () => this.place());
    this.image.addEventListener("error", () => this.show(null));
    host.append(this.image);
  }

  /** @param {string | null} name */
  show(name) {
    if (name === this.name) return;
    this.name = name;
    this.image.hidden = true;
    this.image.removeAttribute("src"); // or an image on its way would show for this name
    clearTimeout(this.timer);
    if (name === null) return;
    this.timer = setTimeout(() => {
      this.image.src = previewUrl(name);
      this.image.alt = `Preview of ${name}`;
    }, DELAY);
  }

  // On the side that has more room, and no wider than that.
  place() {
    const { left, right } = this.host.getBoundingClientRect();
    const room = { left: left - GAP, right: window.innerWidth - right - GAP };
    const toLeft = room.left > room.right;
    this.image.style.maxWidth = `${Math.min(Math.max(room.left, room.right), MAX_WIDTH)}px`;
    this.image.classList.toggle("vivace-thumbnail-left", toLeft);
    this.image.hidden = false;
  }
}
