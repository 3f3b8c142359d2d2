"use strict";
// Plays one sound at a time; a line across the spectrogram shows the position, and a click on the picture sets it.
const players = [...document.querySelectorAll("figure.sound")].map((figure) => ({
  audio: figure.querySelector("audio"),
  picture: figure.querySelector(".picture"),
  head: figure.querySelector(".head"),
}));
for (const { audio, picture, head } of players) {
  const place = () => {
    const part = audio.duration > 0 ? audio.currentTime / audio.duration : 0;
    head.style.left = `${100 * part}%`;
    head.hidden = part === 0;
    if (!audio.paused) requestAnimationFrame(place);
  };
  audio.addEventListener("play", () => {
    for (const other of players) if (other.audio !== audio) other.audio.pause();
    place();
  });
  for (const event of ["pause", "seeked", "ended"]) audio.addEventListener(event, place);
  picture.addEventListener("click", (event) => {
    if (!(audio.duration > 0)) return;
    const box = picture.getBoundingClientRect();
    audio.currentTime = audio.duration * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    audio.play();
  });
}
