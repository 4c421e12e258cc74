//! Loaded into a process by `LD_PRELOAD`, this library stands before the C library: the process goes on as before, but its
//! wall clock and its disk are what a page says that the harness changes meanwhile ([`flott_chaos_basis::control`]).
//!
//! ```text
//! Rust's std, RocksDB ──▶ fsync(fd) ──▶ here: does the page say something, and is it about that file? ──▶ C library
//! ```
//!
//! - [`clock`]: what tells the wall clock. [`disk`]: what writes and syncs.
//! - [`next`]: the C library's own functions. [`wait`]: time, as it is.
//!
//! What must stay true: without a page, or with one that says nothing, every call does what it did. Here nothing is
//! allocated and nothing locked, whatever the process holds while it calls; `errno` changes only where a call fails.
//!
//! Not reached: calls to the system past the C library, and files that are mapped. What waits for a moment of the wall
//! clock (`pthread_cond_timedwait`) waits by the machine's.
#![cfg(target_os = "linux")]
#![expect(
    unsafe_code,
    reason = "functions of the C library, by their contracts; each block says why it may"
)]

pub mod clock;
pub mod disk;
pub mod next;
pub mod wait;

use std::ffi::c_int;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use flott_chaos_basis::control::{BYTES, Page, VARIABLE};

/// Null until a page is mapped.
static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// What the harness says, if there is one.
fn page() -> Option<&'static Page> {
    // SAFETY: null, or a mapping of a whole page that is never unmapped and consists of atomics.
    unsafe { PAGE.load(Ordering::Acquire).as_ref() }
}

#[used]
#[unsafe(link_section = ".init_array")]
static ATTACH: extern "C" fn() = attach;

/// Maps the page that is named in the environment. If there is none, or no usable one, everything stays as it is; the
/// harness sees that nobody attached.
extern "C" fn attach() {
    // SAFETY: nobody changes the environment while a program is being loaded.
    let path = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    if path.is_null() {
        return;
    }
    // SAFETY: `path` is a string; the descriptor is ours until it is closed.
    let mapped = unsafe {
        let fd = libc::open(path, libc::O_RDWR | libc::O_CLOEXEC);
        if fd < 0 {
            return;
        }
        let mapped = map(fd);
        libc::close(fd);
        mapped
    };
    // SAFETY: null, or a whole page.
    let Some(page) = (unsafe { mapped.as_ref() }) else {
        return;
    };
    if page.is_known() {
        page.attach(std::process::id());
        PAGE.store(mapped, Ordering::Release);
    }
}

/// The file as a page; null if it is none.
fn map(fd: c_int) -> *mut Page {
    // SAFETY: all zeros is a `stat`, and it is filled before it is read.
    let is_whole = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut found) == 0 && found.st_size == BYTES as libc::off_t
    };
    if !is_whole {
        return ptr::null_mut();
    }
    // SAFETY: the kernel chooses where; so many bytes are in the file.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    match mapped == libc::MAP_FAILED {
        true => ptr::null_mut(),
        false => mapped.cast(),
    }
}

/// `errno` of this thread.
fn errno() -> *mut c_int {
    // SAFETY: it has no preconditions.
    unsafe { libc::__errno_location() }
}

/// What a call returns that fails with this code.
fn fail<T: From<i8>>(code: c_int) -> T {
    // SAFETY: it is this thread's own.
    unsafe { *errno() = code };
    T::from(-1)
}
