// Decodes plain HDS payloads with HAP-NodeJS's own parser: the second opinion on what the accessory sent.
//
// usage: node hdsdecode.js FOLDER_OF_NODE_MODULES DUMP
// DUMP holds, for each payload, its length (32 bit, big endian) and its bytes. One line of JSON is printed for each:
// [header, message], with data as {"data": SHA-256, "length": N}.
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");

const [folder, dump] = process.argv.slice(2);
const { DataStreamParser, DataStreamReader } = require(
  path.join(folder, "node_modules", "hap-nodejs", "dist", "lib", "datastream"),
);

function comparable(value) {
  if (Buffer.isBuffer(value)) {
    return { data: crypto.createHash("sha256").update(value).digest("hex"), length: value.length };
  }
  if (Array.isArray(value)) {
    return value.map(comparable);
  }
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, comparable(inner)]));
  }
  return value;
}

function decode(bytes) {
  const reader = new DataStreamReader(bytes);
  const value = DataStreamParser.decode(reader);
  reader.finished();
  if (reader.readerIndex !== bytes.length) {
    throw new Error(`${bytes.length - reader.readerIndex} bytes after the value`);
  }
  return comparable(value);
}

const bytes = fs.readFileSync(dump);
for (let at = 0; at < bytes.length;) {
  const length = bytes.readUInt32BE(at);
  const payload = bytes.subarray(at + 4, at + 4 + length);
  const split = 1 + payload[0];
  console.log(JSON.stringify([decode(payload.subarray(1, split)), decode(payload.subarray(split))]));
  at += 4 + length;
}
