//! Time as it is, whatever the page says.

use libc::{c_int, clockid_t, timespec};

use crate::next::next;

/// That clock of the machine.
pub(crate) fn read(clock: clockid_t, time: *mut timespec) -> c_int {
    let real = next!(clock_gettime: unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int);
    match real {
        // SAFETY: the caller has room for it.
        Some(real) => unsafe { real(clock, time) },
        None => super::fail(libc::ENOSYS),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    read(libc::CLOCK_REALTIME, &raw mut now);
    ms_of(&now)
}

pub(crate) fn ms_of(time: &timespec) -> u64 {
    let ms = i128::from(time.tv_sec) * 1_000 + i128::from(time.tv_nsec) / 1_000_000;
    u64::try_from(ms).unwrap_or(0)
}

/// Does nothing for so long, and is not woken by signals.
pub(crate) fn pause(ms: u64) {
    let mut left = timespec {
        tv_sec: (ms / 1_000) as _,
        tv_nsec: (ms % 1_000 * 1_000_000) as _,
    };
    let rest = &raw mut left;
    // SAFETY: both are ours; what is left may be written over what was asked for.
    while unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, rest, rest) } == libc::EINTR {}
}
