"use strict";
// PyTorch's caching allocator, replayed: the same rules as peftadvisor/cuda/allocator.py, without
// expandable segments and max_split_size. Sizes and addresses count units of 512 bytes.
var Allocator = (() => {
  const UNIT = 512;
  const MIB = 2048;
  const OWN_SEGMENT = 10 * MIB;
  const ROUND_LARGE = 2 * MIB;
  const SEGMENTS = [2 * MIB, 20 * MIB];

  // The place of the first block of a pool that is not before (size, address).
  function placeOf(pool, size, address) {
    let low = 0;
    let high = pool.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const block = pool[middle];
      if (block.size < size || (block.size === size && block.address < address)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  class Arena {
    constructor(capacity) {
      this.free = [[], []];
      this.starts = new Map();
      this.ends = new Map();
      this.segments = new Map();
      this.capacity = capacity;
      this.reserved = this.peak = this.next = 0;
    }

    drop(pool, block) {
      pool.splice(placeOf(pool, block.size, block.address), 1);
    }

    put(pool, from, length) {
      let address = from;
      let end = from + length;
      const after = this.starts.get(end);
      if (after) {
        this.starts.delete(end);
        this.drop(pool, after);
        end += after.size;
      }
      const before = this.ends.get(address);
      if (before) {
        this.ends.delete(address);
        this.drop(pool, before);
        address = before.address;
      }
      const block = { address, size: end - address };
      this.starts.set(address, block);
      this.ends.set(end, block);
      pool.splice(placeOf(pool, block.size, address), 0, block);
      return block;
    }

    newSegment(large, size) {
      const total = size >= OWN_SEGMENT ? Math.ceil(size / ROUND_LARGE) * ROUND_LARGE : SEGMENTS[large];
      if (this.reserved + total > this.capacity) return null;
      this.reserved += total;
      this.peak = Math.max(this.peak, this.reserved);
      const address = this.next;
      this.next += total + 1;
      this.segments.set(address, total);
      return this.put(this.free[large], address, total);
    }

    releaseCached() {
      for (const pool of this.free) {
        for (const block of pool.slice()) {
          if (this.segments.get(block.address) !== block.size) continue;
          this.segments.delete(block.address);
          this.drop(pool, block);
          this.starts.delete(block.address);
          this.ends.delete(block.address + block.size);
          this.reserved -= block.size;
        }
      }
    }

    // A block for a request, no longer free; null when out of memory.
    take(large, size) {
      const pool = this.free[large];
      let place = placeOf(pool, size, 0);
      if (place === pool.length) {
        let block = this.newSegment(large, size);
        if (!block) {
          this.releaseCached();
          block = this.newSegment(large, size);
        }
        if (!block) return null;
        place = placeOf(pool, block.size, block.address);
      }
      const block = pool.splice(place, 1)[0];
      this.starts.delete(block.address);
      const rest = block.size - size;
      if (rest < (large ? MIB + 1 : 1)) {
        this.ends.delete(block.address + block.size);
        return block;
      }
      const tail = { address: block.address + size, size: rest };
      this.starts.set(tail.address, tail);
      this.ends.set(tail.address + rest, tail);
      pool.splice(placeOf(pool, rest, tail.address), 0, tail);
      return { address: block.address, size };
    }
  }

  // Peak of what is reserved, in bytes, and whether all of it fits. `back` is 0 where the next
  // storage is made, else how far back the storage is that is freed; the workspaces are made
  // before anything is freed.
  function replay(back, units, workspace, capacityBytes) {
    const arena = new Arena(Math.floor(capacityBytes / UNIT));
    const live = new Array(units.length);
    let made = 0;
    let before = true;

    function allocate(size) {
      return size ? arena.take(size > MIB ? 1 : 0, size) : undefined;
    }

    for (let event = 0; event < back.length; event += 1) {
      if (back[event] === 0) {
        const block = allocate(units[made]);
        if (block === null) return { peak: arena.peak * UNIT, fits: false };
        live[made] = block;
        made += 1;
        continue;
      }
      if (before) {
        before = false;
        for (const size of workspace) {
          if (allocate(size) === null) return { peak: arena.peak * UNIT, fits: false };
        }
      }
      const block = live[made - back[event]];
      if (block) arena.put(arena.free[block.size > MIB ? 1 : 0], block.address, block.size);
    }
    return { peak: arena.peak * UNIT, fits: true };
  }

  return { UNIT, replay };
})();
