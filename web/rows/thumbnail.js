// The preview image of a LoRA, beside the list that it belongs to.

import { make } from "./dom.js";
import { previewUrl } from "./server.js";

const DELAY = 120; // ms: no images while the user moves through the list

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
    clearTimeout(this.timer);
    if (name === null) return;
    this.timer = setTimeout(() => {
      this.image.src = previewUrl(name);
      this.image.alt = `Preview of ${name}`;
    }, DELAY);
  }

  // On the side that has room.
  place() {
    if (this.name === null) return;
    this.image.hidden = false;
    const { right } = this.host.getBoundingClientRect();
    const fits = right + this.image.offsetWidth < window.innerWidth;
    this.image.classList.toggle("vivace-thumbnail-left", !fits);
  }
}
