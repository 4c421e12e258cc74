//! The calls to the system that are replaced.
//!
//! Each has the name of the C library's, so that everything in this program calls it. What is not for the simulation goes
//! on to the system as it came, past the C library.
#![expect(
    unsafe_code,
    clippy::missing_safety_doc,
    reason = "these are functions of the C library, with its contracts"
)]

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_char, c_int, c_long, c_uint, c_void, mode_t, off64_t, size_t, ssize_t, timespec};

use super::files::Outcome;
use super::{SECOND, attempt};

fn fail(code: c_int) -> c_int {
    // SAFETY: it is this thread's own.
    unsafe { *libc::__errno_location() = code };
    -1
}

/// What the system said.
fn returned(result: c_long) -> c_int {
    result as c_int
}

/// What a simulated disk says, or the system's own answer.
fn answer(outcome: Option<Outcome>, system: impl FnOnce() -> c_long) -> c_long {
    match outcome {
        None | Some(Outcome::Go) => system(),
        Some(Outcome::Fail(code)) => c_long::from(fail(code)),
    }
}

unsafe fn path_of<'a>(path: *const c_char) -> &'a Path {
    // SAFETY: the caller of the C function promises a string.
    Path::new(OsStr::from_bytes(
        unsafe { CStr::from_ptr(path) }.to_bytes(),
    ))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    let drawn = attempt(|kernel| {
        if length > 0 {
            // SAFETY: the caller promises so many bytes.
            let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
            bytes.fill(0);
            kernel.fill_random(bytes);
        }
        length as ssize_t
    });
    drawn.unwrap_or_else(|| {
        // SAFETY: as it came.
        unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as ssize_t }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut timespec) -> c_int {
    let known = attempt(|kernel| {
        let monotonic = matches!(
            clock,
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME
        );
        let wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
        let host = kernel.current.map(|host| &kernel.hosts[host].clock);
        match (host, monotonic, wall) {
            (Some(host), true, _) => Some(host.monotonic(kernel.now)),
            (Some(host), _, true) => Some(host.wall(kernel.now)),
            (None, true, _) | (None, _, true) => Some(kernel.now),
            _ => None,
        }
    });
    match known.flatten() {
        Some(ns) => {
            let value = timespec {
                tv_sec: (ns / SECOND) as i64,
                tv_nsec: (ns % SECOND) as i64,
            };
            // SAFETY: the caller promises room for it.
            unsafe { time.write(value) };
            0
        }
        // SAFETY: as it came.
        None => returned(unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) }),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    let waits = attempt(|kernel| kernel.current.map(|_| kernel.on_wait(timeout)));
    match waits.flatten() {
        Some(root) => {
            // Who runs the process gets control back. Simulated connections wake their readers themselves.
            if let Some(root) = root {
                root.wake();
            }
            0
        }
        // SAFETY: as it came.
        None => returned(unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait,
                epoll,
                events,
                max,
                timeout,
                std::ptr::null::<c_void>(),
                8,
            )
        }),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn getpid() -> libc::pid_t {
    attempt(|_| 1).unwrap_or_else(|| {
        // SAFETY: it has no arguments.
        returned(unsafe { libc::syscall(libc::SYS_getpid) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as it came.
    let system = || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    // SAFETY: as the caller promises.
    let name = unsafe { path_of(path) };
    let begun = attempt(|kernel| kernel.before_open(name, flags));
    let fd = answer(begun, system) as c_int;
    if fd >= 0 {
        attempt(|kernel| kernel.after_open(name, fd));
    }
    fd
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    attempt(|kernel| kernel.files.closed(fd));
    // SAFETY: as it came.
    returned(unsafe { libc::syscall(libc::SYS_close, fd) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    let begun = attempt(|kernel| {
        // SAFETY: the caller promises so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
        kernel.before_write(fd, None, bytes)
    });
    // SAFETY: as it came.
    answer(begun, || unsafe {
        libc::syscall(libc::SYS_write, fd, buffer, length)
    }) as ssize_t
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    offset: off64_t,
) -> ssize_t {
    let begun = attempt(|kernel| {
        // SAFETY: the caller promises so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
        kernel.before_write(fd, Some(offset as u64), bytes)
    });
    // SAFETY: as it came.
    answer(begun, || unsafe {
        libc::syscall(libc::SYS_pwrite64, fd, buffer, length, offset)
    }) as ssize_t
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off64_t) -> c_int {
    let begun = attempt(|kernel| kernel.before_set_len(fd, length as u64));
    // SAFETY: as it came.
    returned(answer(begun, || unsafe {
        libc::syscall(libc::SYS_ftruncate, fd, length)
    }))
}

/// Nothing has to be synced in memory; what a disk would have then is what is kept account of.
fn synced(fd: c_int, number: c_long) -> c_int {
    let begun = attempt(|kernel| kernel.on_sync(fd));
    // SAFETY: it takes a descriptor.
    returned(answer(begun, || unsafe { libc::syscall(number, fd) }))
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    let (old, new) = unsafe { (path_of(from), path_of(to)) };
    let begun = attempt(|kernel| kernel.before_rename(old, new));
    // SAFETY: as it came.
    returned(answer(begun, || unsafe {
        libc::syscall(libc::SYS_renameat, libc::AT_FDCWD, from, libc::AT_FDCWD, to)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: as the caller promises.
    let name = unsafe { path_of(path) };
    let begun = attempt(|kernel| kernel.before_unlink(name));
    // SAFETY: as it came.
    returned(answer(begun, || unsafe {
        libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as the caller promises.
    let name = unsafe { path_of(path) };
    let begun = attempt(|kernel| kernel.before_mkdir(name));
    // SAFETY: as it came.
    returned(answer(begun, || unsafe {
        libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode)
    }))
}
