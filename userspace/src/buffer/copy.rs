//! Copies from and to memory that someone else may write at the same moment.
//!
//! `ptr::copy` lets the compiler assume that nobody does: it may read a byte
//! twice and trust that both are the same. A volatile access is made once, as
//! written, so that what was copied is at worst a mix of old and new bytes,
//! never a surprise to the code that checks it afterwards. They go by words,
//! since a device's memory may be uncached, and every access then costs.

const WORD: usize = size_of::<u64>();

/// How many bytes of `len` lie before the first whole word at `at`.
fn head(at: *const u8, len: usize) -> usize {
    at.align_offset(WORD).min(len)
}

/// Copies shared memory into memory of our own.
///
/// # Safety
/// `from..from + into.len()` must be mapped for reading.
pub(super) unsafe fn load(from: *const u8, into: &mut [u8]) {
    let (head, rest) = into.split_at_mut(head(from, into.len()));
    let mut at = from;
    // SAFETY: `at` walks over `into.len()` bytes in all, which the caller
    // vouches for, and is aligned to a word after `head`.
    unsafe {
        for byte in head {
            *byte = at.read_volatile();
            at = at.add(1);
        }
        let mut words = rest.chunks_exact_mut(WORD);
        for word in &mut words {
            word.copy_from_slice(&at.cast::<u64>().read_volatile().to_ne_bytes());
            at = at.add(WORD);
        }
        for byte in words.into_remainder() {
            *byte = at.read_volatile();
            at = at.add(1);
        }
    }
}

/// Copies memory of our own into shared memory.
///
/// # Safety
/// `into..into + from.len()` must be mapped for writing.
pub(super) unsafe fn store(from: &[u8], into: *mut u8) {
    let (head, rest) = from.split_at(head(into, from.len()));
    let (words, tail) = rest.as_chunks::<WORD>();
    let mut at = into;
    // SAFETY: as in `load`.
    unsafe {
        for byte in head {
            at.write_volatile(*byte);
            at = at.add(1);
        }
        for word in words {
            at.cast::<u64>().write_volatile(u64::from_ne_bytes(*word));
            at = at.add(WORD);
        }
        for byte in tail {
            at.write_volatile(*byte);
            at = at.add(1);
        }
    }
}

/// Sets `len` bytes of shared memory to `byte`.
///
/// # Safety
/// `into..into + len` must be mapped for writing.
pub(super) unsafe fn fill(into: *mut u8, len: usize, byte: u8) {
    let block = [byte; 4096];
    let mut done = 0;
    while done < len {
        let part = block.len().min(len - done);
        // SAFETY: `done + part <= len`, and the caller vouches for `len`.
        unsafe { store(&block[..part], into.add(done)) };
        done += part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every alignment and length around a word: what was asked for is copied,
    /// and not a byte beside it.
    #[test]
    fn copies_are_exact() {
        let picture: Vec<u8> = (1..=40).collect();
        for start in 0..9 {
            for len in 0..30 {
                let mut memory = [0u8; 48];
                // SAFETY: start + len < 48.
                unsafe { store(&picture[..len], memory.as_mut_ptr().add(start)) };
                assert_eq!(&memory[start..start + len], &picture[..len]);
                assert!(memory[..start].iter().all(|b| *b == 0));
                assert!(memory[start + len..].iter().all(|b| *b == 0));

                let mut back = vec![0u8; len];
                // SAFETY: as above.
                unsafe { load(memory.as_ptr().add(start), &mut back) };
                assert_eq!(back, &picture[..len]);

                // SAFETY: as above.
                unsafe { fill(memory.as_mut_ptr().add(start), len, 0xff) };
                assert_eq!(memory.iter().filter(|b| **b == 0xff).count(), len);
            }
        }
    }
}
