//! What tells the wall clock. The monotonic clock is the machine's.
#![expect(
    clippy::missing_safety_doc,
    reason = "these are functions of the C library, with its contracts"
)]

use flott_chaos_basis::control::Lever;
use libc::{c_int, c_void, clockid_t, time_t, timespec, timeval};

use crate::next::next;
use crate::{fail, page, wait};

const SECOND_NS: i128 = 1_000_000_000;

/// What the clock says when it is `real`; none: that.
fn told(real: &timespec) -> Option<timespec> {
    let setting = page()?.setting(Lever::Clock);
    let offset = setting.holds(|| wait::ms_of(real))?.cast_signed();
    if !setting.count() {
        return None;
    }
    let real_ns = i128::from(real.tv_sec) * SECOND_NS + i128::from(real.tv_nsec);
    // There is nothing before 1970.
    let told_ns = (real_ns + i128::from(offset)).max(0);
    Some(timespec {
        tv_sec: (told_ns / SECOND_NS) as time_t,
        tv_nsec: (told_ns % SECOND_NS) as _,
    })
}

/// What the clock says now, if it is not the truth.
fn now() -> Option<timespec> {
    let mut real = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match wait::read(libc::CLOCK_REALTIME, &raw mut real) {
        0 => told(&real),
        _ => None,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    let read = wait::read(clock, time);
    let is_wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    if read == 0 && is_wall {
        // SAFETY: it was filled just now.
        if let Some(told) = told(unsafe { &*time }) {
            // SAFETY: as before.
            unsafe { time.write(told) };
        }
    }
    read
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut timeval, zone: *mut c_void) -> c_int {
    let real = next!(gettimeofday: unsafe extern "C" fn(*mut timeval, *mut c_void) -> c_int);
    let Some(real) = real else {
        return fail(libc::ENOSYS);
    };
    // SAFETY: as it came.
    let read = unsafe { real(time, zone) };
    if read == 0
        && !time.is_null()
        && let Some(told) = now()
    {
        let told = timeval {
            tv_sec: told.tv_sec,
            tv_usec: told.tv_nsec / 1_000,
        };
        // SAFETY: it was filled just now.
        unsafe { time.write(told) };
    }
    read
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(at: *mut time_t) -> time_t {
    let Some(real) = next!(time: unsafe extern "C" fn(*mut time_t) -> time_t) else {
        return fail(libc::ENOSYS);
    };
    // SAFETY: as it came.
    let read = unsafe { real(at) };
    let Some(told) = now() else { return read };
    if !at.is_null() {
        // SAFETY: the caller promises room for it.
        unsafe { at.write(told.tv_sec) };
    }
    told.tv_sec
}
