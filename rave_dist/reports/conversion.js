"use strict";
// A sound that is started takes the place of another one of its row at the same moment: recording and results can be compared
// in the middle of a note. One sound plays at a time; a click on a waveform sets the position.
const cells = [...document.querySelectorAll(".sounds td")].filter((cell) => cell.querySelector("audio")).map((cell) => ({
  row: cell.parentElement,
  audio: cell.querySelector("audio"),
  track: cell.querySelector(".track"),
  head: cell.querySelector(".head"),
}));
for (const { row, audio, track, head } of cells) {
  const place = () => {
    const part = audio.duration > 0 ? audio.currentTime / audio.duration : 0;
    head.style.left = `${100 * part}%`;
    head.hidden = part === 0;
    if (!audio.paused) requestAnimationFrame(place);
  };
  audio.addEventListener("play", () => {
    for (const other of cells) {
      if (other.audio === audio || other.audio.paused) continue;
      if (other.row === row) audio.currentTime = other.audio.currentTime;
      other.audio.pause();
    }
    place();
  });
  for (const event of ["pause", "seeked", "ended"]) audio.addEventListener(event, place);
  track.addEventListener("click", (event) => {
    if (!(audio.duration > 0)) return;
    const box = track.getBoundingClientRect();
    for (const other of cells) if (other.audio !== audio) other.audio.pause();
    audio.currentTime = audio.duration * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    audio.play();
  });
}
