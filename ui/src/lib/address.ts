// Addresses outside of pods, and the ends of the report that contain them.
import type { End } from "./schema";

interface Address {
  family: 4 | 6;
  number: bigint;
}

const parseV4 = (text: string): bigint | undefined => {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return undefined;
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
};

const parseV6 = (text: string): bigint | undefined => {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half === "" ? [] : half.split(":")));
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...Array.from({ length: missing }, () => "0"), ...tail];
  if (!groups.every((group) => /^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
};

export const parseAddress = (text: string): Address | undefined => {
  const isV6 = text.includes(":");
  const number = isV6 ? parseV6(text) : parseV4(text);
  return number === undefined ? undefined : { family: isV6 ? 6 : 4, number };
};

// Whether a range as the report writes it has an address: `10.0.0.0/8`, `10.0.0.1-10.0.0.9` or one address.
const contains = (range: string, { family, number }: Address): boolean => {
  const [start = "", length] = range.split("/");
  const [first, last] = start.split("-").map(parseAddress);
  if (first?.family !== family) return false;
  if (last) return first.number <= number && number <= last.number;
  const rest = length === undefined ? 0n : BigInt((family === 4 ? 32 : 128) - Number(length));
  return first.number >> rest === number >> rest;
};

// The number of the end outside that has an address.
export const endWith = (ends: readonly End[], text: string): number | undefined => {
  const address = parseAddress(text);
  if (!address) return undefined;
  const found = ends.findIndex((end) => end.kind === "external" && end.id.split(", ").some((range) => contains(range, address)));
  return found < 0 ? undefined : found;
};
