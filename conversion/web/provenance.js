// What is saved says that it is edited: an XMP packet in the PNG file, where other programs look for it.

// A PNG file's bytes with a text chunk behind the header.
export function withPacket(png, packet) {
  const text = new TextEncoder().encode(`XML:com.adobe.xmp\0\0\0\0\0${packet}`);
  const chunk = new Uint8Array(text.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, text.length);
  chunk.set(new TextEncoder().encode("iTXt"), 4);
  chunk.set(text, 8);
  view.setUint32(text.length + 8, checksum(chunk.subarray(4, text.length + 8)));
  const header = 8 + 12 + 13; // signature and the first chunk, which is always IHDR
  return new Blob([png.subarray(0, header), chunk, png.subarray(header)], { type: "image/png" });
}

function checksum(bytes) {
  let remainder = ~0;
  for (const byte of bytes) {
    remainder ^= byte;
    for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xedb88320 : 0);
  }
  return ~remainder >>> 0;
}
