//! What writes and syncs files.
//!
//! Which file a descriptor means is asked each time, but only while the page says something about disks: descriptors are
//! used again, so whatever was remembered could be about another file.
#![expect(
    clippy::missing_safety_doc,
    reason = "these are functions of the C library, with its contracts"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use flott_chaos_basis::control::{Lever, Page};
use libc::{c_int, c_uint, c_void, iovec, off_t, off64_t, size_t, ssize_t};

use crate::next::next;
use crate::{errno, fail, page, wait};

/// Between two looks whether a hung disk is well again.
const LOOK_EVERY_MS: u64 = 10;
/// Longer than any path that the system gives.
const PATH_BYTES: usize = 4096 + 16;

/// What a write has to say before the C library is asked.
fn before_write(fd: c_int) -> Result<(), c_int> {
    let Some(page) = page() else { return Ok(()) };
    let full = page.setting(Lever::Full);
    match full.holds(wait::now_ms).is_some() && is_below(page, fd) && full.count() {
        true => Err(libc::ENOSPC),
        false => Ok(()),
    }
}

/// What a sync has to say, and when.
fn before_sync(fd: c_int) -> Result<(), c_int> {
    let Some(page) = page() else { return Ok(()) };
    let [slow, hung, error] =
        [Lever::Slow, Lever::Hung, Lever::SyncError].map(|lever| page.setting(lever));
    let says = [slow, hung, error].map(|setting| setting.holds(wait::now_ms));
    if says == [None; 3] || !is_below(page, fd) {
        return Ok(());
    }
    if let Some(ms) = says[0]
        && slow.count()
    {
        wait::pause(ms);
    }
    if says[1].is_some() && hung.count() {
        while hung.holds(wait::now_ms).is_some() {
            wait::pause(LOOK_EVERY_MS);
        }
    }
    // What hung may have been well again long ago, or have begun to fail.
    match error.holds(wait::now_ms) {
        Some(permille) if draw() % 1_000 < permille && error.count() => Err(libc::EIO),
        _ => Ok(()),
    }
}

/// Whether the descriptor is of a file below the prefix.
fn is_below(page: &Page, fd: c_int) -> bool {
    let link = link_of(fd);
    let mut path = [0_u8; PATH_BYTES];
    // SAFETY: this thread's own.
    let before = unsafe { *errno() };
    // SAFETY: a string that ends with a zero, and room for so many bytes.
    let length =
        unsafe { libc::readlink(link.as_ptr().cast(), path.as_mut_ptr().cast(), path.len()) };
    // SAFETY: as before.
    unsafe { *errno() = before };
    let path = usize::try_from(length)
        .ok()
        .and_then(|length| path.get(..length));
    path.is_some_and(|path| page.is_below(path))
}

/// `/proc/self/fd/<fd>`, ended by a zero. A negative descriptor is nobody's.
fn link_of(fd: c_int) -> [u8; 32] {
    const BEGIN: &[u8] = b"/proc/self/fd/";
    let mut link = [0; 32];
    link[..BEGIN.len()].copy_from_slice(BEGIN);
    let mut digits = [0; 10];
    let (mut rest, mut count) = (fd.unsigned_abs(), 0);
    while count == 0 || rest > 0 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    for (index, digit) in digits[..count].iter().rev().enumerate() {
        link[BEGIN.len() + index] = *digit;
    }
    link
}

/// Any number (SplitMix64).
fn draw() -> u64 {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let mut mixed = STATE.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A function that takes a descriptor first and says -1 when it fails.
macro_rules! stands_before {
    ($before:ident: $name:ident($($argument:ident: $type:ty),*) -> $result:ty) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(fd: c_int, $($argument: $type),*) -> $result {
            if let Err(code) = $before(fd) {
                return fail(code);
            }
            match next!($name: unsafe extern "C" fn(c_int, $($type),*) -> $result) {
                // SAFETY: as it came.
                Some(real) => unsafe { real(fd, $($argument),*) },
                None => fail(libc::ENOSYS),
            }
        }
    };
}

stands_before!(before_sync: fsync() -> c_int);
stands_before!(before_sync: fdatasync() -> c_int);
stands_before!(before_sync: sync_file_range(offset: off64_t, bytes: off64_t, flags: c_uint) -> c_int);

stands_before!(before_write: write(buffer: *const c_void, bytes: size_t) -> ssize_t);
stands_before!(before_write: pwrite(buffer: *const c_void, bytes: size_t, offset: off_t) -> ssize_t);
stands_before!(before_write: pwrite64(buffer: *const c_void, bytes: size_t, offset: off64_t) -> ssize_t);
stands_before!(before_write: writev(buffers: *const iovec, count: c_int) -> ssize_t);
stands_before!(before_write: pwritev(buffers: *const iovec, count: c_int, offset: off_t) -> ssize_t);
stands_before!(before_write: pwritev64(buffers: *const iovec, count: c_int, offset: off64_t) -> ssize_t);
stands_before!(before_write: fallocate(mode: c_int, offset: off_t, bytes: off_t) -> c_int);
stands_before!(before_write: fallocate64(mode: c_int, offset: off64_t, bytes: off64_t) -> c_int);

/// Says its error instead of -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_fallocate(fd: c_int, offset: off_t, bytes: off_t) -> c_int {
    if let Err(code) = before_write(fd) {
        return code;
    }
    match next!(posix_fallocate: unsafe extern "C" fn(c_int, off_t, off_t) -> c_int) {
        // SAFETY: as it came.
        Some(real) => unsafe { real(fd, offset, bytes) },
        None => libc::ENOSYS,
    }
}

/// The same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_fallocate64(fd: c_int, offset: off64_t, bytes: off64_t) -> c_int {
    if let Err(code) = before_write(fd) {
        return code;
    }
    match next!(posix_fallocate64: unsafe extern "C" fn(c_int, off64_t, off64_t) -> c_int) {
        // SAFETY: as it came.
        Some(real) => unsafe { real(fd, offset, bytes) },
        None => libc::ENOSYS,
    }
}

/// How files are copied within the system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_offset: *mut off64_t,
    to: c_int,
    to_offset: *mut off64_t,
    bytes: size_t,
    flags: c_uint,
) -> ssize_t {
    if let Err(code) = before_write(to) {
        return fail(code);
    }
    type Copy =
        unsafe extern "C" fn(c_int, *mut off64_t, c_int, *mut off64_t, size_t, c_uint) -> ssize_t;
    match next!(copy_file_range: Copy) {
        // SAFETY: as it came.
        Some(real) => unsafe { real(from, from_offset, to, to_offset, bytes, flags) },
        None => fail(libc::ENOSYS),
    }
}
