//! Random bytes (getrandom(2), /dev/urandom): ChaCha20 with fast key erasure - each use makes the next key first - seeded from the boot
//! page.

use hal::sync::SpinLock;

/// The generator's key; None until first use.
static KEY: SpinLock<Option<[u32; 8]>> = SpinLock::new(None);

/// Fills `out`.
pub fn fill(out: &mut [u8]) {
    let mut key = {
        let mut state = KEY.lock();
        let current = state.unwrap_or_else(seed);
        let block = block(&current, 0);
        let mut next = [0; 8];
        next.copy_from_slice(&block[..8]);
        *state = Some(next);
        let mut own = [0; 8];
        own.copy_from_slice(&block[8..]);
        own
    };
    for (counter, chunk) in out.chunks_mut(64).enumerate() {
        let words = block(&key, counter as u64 + 1);
        for (bytes, word) in chunk.chunks_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
    }
    key.fill(0);
}

/// A random number.
pub fn word() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn seed() -> [u32; 8] {
    let mut key = [0; 8];
    for (words, seed) in key.chunks_mut(2).zip(hal::cpu::random_seed()) {
        words[0] = seed as u32;
        words[1] = (seed >> 32) as u32;
    }
    // Two guests that were given the same seed by mistake still differ by the time.
    key[7] ^= hal::time::tsc() as u32;
    key
}

/// One block of ChaCha20 (RFC 8439) with a zero nonce and a 64-bit counter.
fn block(key: &[u32; 8], counter: u64) -> [u32; 16] {
    let mut start = [0; 16];
    start[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
    start[4..12].copy_from_slice(key);
    start[12] = counter as u32;
    start[13] = (counter >> 32) as u32;
    let mut x = start;
    for _ in 0..10 {
        for [a, b, c, d] in
            [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15], [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]]
        {
            quarter(&mut x, a, b, c, d);
        }
    }
    for (word, first) in x.iter_mut().zip(start) {
        *word = word.wrapping_add(first);
    }
    x
}

fn quarter(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, appendix A.1, test vector 1: zero key, zero nonce, counter 0.
    #[test]
    fn chacha20_block_of_the_rfc() {
        let words = block(&[0; 8], 0);
        assert_eq!(words[..4], [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40, 0x28bd_8653]);
        assert_eq!(words[15], 0x8665_eeb2);
    }
}
