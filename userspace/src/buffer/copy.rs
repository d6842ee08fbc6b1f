//! Copies from and to memory that someone else may write at the same moment.
//!
//! `ptr::copy` lets the compiler assume that nobody does: it may read a byte
//! twice and trust that both are the same. A volatile access is made once, as
//! written, so that what was copied is at worst a mix of old and new bytes,
//! never a surprise to the code that checks it afterwards. They go by words,
//! since a device's memory may be uncached, and every access then costs.
//!
//! Long runs go by the processor's own instruction for that where it has one,
//! which is as fast as memcpy. To the compiler it is opaque, as a volatile
//! access is.

const WORD: usize = size_of::<u64>();

/// From how many bytes on the processor's instruction is faster than words.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LONG: usize = 1024;

/// Copies the whole words of a long run by one instruction, and says how many
/// bytes that were: 0 of a short one.
///
/// Words, since an emulator executes it word by word.
///
/// # Safety
/// `from..from + len` must be mapped for reading and `into..into + len` for
/// writing, and they must not overlap.
unsafe fn long(from: *const u8, into: *mut u8, len: usize) -> usize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= LONG {
        // SAFETY: reads and writes what the caller vouches for; the direction
        // flag is clear, as the ABI has it.
        unsafe {
            std::arch::asm!(
                "rep movsq",
                inout("rcx") len / WORD => _,
                inout("rsi") from => _,
                inout("rdi") into => _,
                options(nostack, preserves_flags)
            );
        }
        return len / WORD * WORD;
    }
    let _ = (from, into, len);
    0
}

/// How many bytes of `len` lie before the first whole word at `at`.
fn head(at: *const u8, len: usize) -> usize {
    at.align_offset(WORD).min(len)
}

/// Copies shared memory into memory of our own.
///
/// # Safety
/// `from..from + into.len()` must be mapped for reading.
pub(crate) unsafe fn load(from: *const u8, into: &mut [u8]) {
    // SAFETY: the caller vouches for `from`, and `into` is memory of our own.
    let done = unsafe { long(from, into.as_mut_ptr(), into.len()) };
    let into = &mut into[done..];
    // SAFETY: not beyond the end.
    let from = unsafe { from.add(done) };
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
pub(crate) unsafe fn store(from: &[u8], into: *mut u8) {
    // SAFETY: as in `load`.
    let done = unsafe { long(from.as_ptr(), into, from.len()) };
    let from = &from[done..];
    // SAFETY: not beyond the end.
    let into = unsafe { into.add(done) };
    let (head, rest) = from.split_at(head(into, from.len()));
    let (words, tail) = rest.as_chunks::<WORD>();
    let mut at = into;
    // SAFETY: `at` walks over `from.len()` bytes in all, which the caller
    // vouches for, and is aligned to a word after `head`.
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

    /// Copies in and out at `start` of a larger memory: what was asked for is
    /// copied, and not a byte beside it.
    fn is_exact(picture: &[u8], start: usize) {
        let len = picture.len();
        let mut memory = vec![0u8; start + len + 9];
        // SAFETY: inside of the memory, as is all below.
        unsafe { store(picture, memory.as_mut_ptr().add(start)) };
        assert_eq!(&memory[start..start + len], picture);
        assert!(memory[..start].iter().all(|b| *b == 0));
        assert!(memory[start + len..].iter().all(|b| *b == 0));

        let mut back = vec![0u8; len];
        // SAFETY: as above.
        unsafe { load(memory.as_ptr().add(start), &mut back) };
        assert_eq!(back, picture);

        // Not a value of a picture.
        let count = |memory: &[u8]| memory.iter().filter(|b| **b == 0xff).count();
        // SAFETY: as above.
        unsafe { fill(memory.as_mut_ptr().add(start), len, 0xff) };
        assert_eq!(count(&memory), len);
        assert_eq!(count(&memory[start..start + len]), len);
    }

    /// Every alignment and length around a word.
    #[test]
    fn copies_are_exact() {
        let picture: Vec<u8> = (1..=40).collect();
        for start in 0..9 {
            for len in 0..30 {
                is_exact(&picture[..len], start);
            }
        }
    }

    /// Every alignment, and lengths around the first that goes by the processor's
    /// instruction.
    #[test]
    fn long_copies_are_exact() {
        let picture: Vec<u8> = (1..=250).cycle().take(5000).collect();
        for len in [1023, 1024, 1025, 4099] {
            for start in 0..9 {
                is_exact(&picture[..len], start);
            }
        }
    }
}
