//! Faults on purpose, compiled as the library is: a checker that does not find them would not find the
//! library's either.
#![allow(unsafe_code)]

/// Memory that nobody frees, and nobody knows any more; several times, for the last address may still lie
/// about somewhere.
#[unsafe(no_mangle)]
pub extern "C" fn planted_leak() {
    for _ in 0..8 {
        std::mem::forget(std::hint::black_box(vec![1_u8; 4321]));
    }
}

/// Reads memory that was freed.
#[unsafe(no_mangle)]
pub extern "C" fn planted_use_after_free() -> u8 {
    let bytes = std::hint::black_box(vec![7_u8; 4321]);
    let (data, len) = (bytes.as_ptr(), bytes.len());
    drop(bytes);
    let mut copy = vec![0_u8; len];
    // SAFETY: none; that is the point.
    unsafe { std::ptr::copy_nonoverlapping(std::hint::black_box(data), copy.as_mut_ptr(), len) };
    copy[len / 2]
}

/// Two threads count without asking each other.
#[unsafe(no_mangle)]
pub extern "C" fn planted_race() -> u64 {
    static mut COUNT: u64 = 0;
    let count = || {
        for _ in 0..1000 {
            // SAFETY: none; that is the point.
            unsafe {
                std::ptr::write_volatile(
                    &raw mut COUNT,
                    std::ptr::read_volatile(&raw const COUNT) + 1,
                )
            };
        }
    };
    let other = std::thread::spawn(count);
    count();
    drop(other.join());
    // SAFETY: the other thread has ended.
    unsafe { std::ptr::read_volatile(&raw const COUNT) }
}
