//! The page by which a harness tells a process what its clock says and what its disk does.
//!
//! ```text
//! harness ──writes──▶ file of one page ◀──has it mapped── preload library in the process
//!
//!    0  magic u64    8  version u32    12  process u32    16  length of the prefix u32    20  unused
//!   24  five levers, 40 bytes each: on u8 │ 7 unused │ until u64 │ amount u64 │ left u64 │ times u64
//!  224  prefix                                                         (numbers as the machine has them)
//! ```
//!
//! `process` and `times` are the library's to write, the rest is the harness's. What must stay true: the measures of a lever
//! are written while it is off, and whether it is on is one byte, so nobody ever sees half of a change. A lever that is on
//! does nothing after `until`: whatever becomes of the harness, the process heals.

use std::ffi::CStr;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The environment variable that names the file of a process's page.
pub const VARIABLE: &CStr = c"FLOTT_CHAOS_PAGE";
/// Of the file.
pub const BYTES: usize = 4096;
const MAGIC: u64 = u64::from_ne_bytes(*b"FLOTTCTL");
/// Of the layout. A library and a harness of different versions have nothing to do with each other.
pub const VERSION: u32 = 1;
/// As `left`: as often as it comes to it.
pub const ALWAYS: u64 = u64::MAX;
const PREFIX_BYTES_MAX: usize = BYTES - 224;

/// What can be done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lever {
    /// The wall clock is off by `amount`, an `i64` of nanoseconds. The monotonic clock never is.
    Clock,
    /// Below the prefix, what is written finds no room.
    Full,
    /// Below the prefix, `amount` of a thousand syncs fail.
    SyncError,
    /// Below the prefix, each sync takes `amount` milliseconds longer.
    Slow,
    /// Below the prefix, a sync does not come back before the lever is off or its time is over.
    Hung,
}

impl Lever {
    /// All, in the order of the page.
    pub const ALL: [Self; 5] = [
        Self::Clock,
        Self::Full,
        Self::SyncError,
        Self::Slow,
        Self::Hung,
    ];

    /// Where in the page the lever is.
    fn at(self) -> usize {
        offset_of!(Page, settings) + self as usize * size_of::<Setting>()
    }

    /// Where its byte is.
    pub fn at_on(self) -> usize {
        self.at() + offset_of!(Setting, on)
    }

    /// Where its measures are: until, amount, left.
    pub fn at_measures(self) -> usize {
        self.at() + offset_of!(Setting, until_ms)
    }

    /// Where it is counted how often it did something.
    pub fn at_times(self) -> usize {
        self.at() + offset_of!(Setting, times)
    }
}

/// Where the number of the process is that has the page mapped; 0: none ever had.
pub const AT_PROCESS: usize = offset_of!(Page, process);

/// One lever.
#[derive(Debug)]
#[repr(C)]
pub struct Setting {
    on: AtomicU8,
    _unused: [u8; 7],
    /// Milliseconds since 1970, by the machine's own clock.
    until_ms: AtomicU64,
    amount: AtomicU64,
    /// How often it may still do something.
    left: AtomicU64,
    /// How often it has done something.
    times: AtomicU64,
}

impl Setting {
    /// Its amount, if it is to do something now. `now_ms` is asked only if it is on: it costs a call.
    pub fn holds(&self, now_ms: impl FnOnce() -> u64) -> Option<u64> {
        let is_on = self.on.load(Ordering::Acquire) == 1;
        let holds = is_on
            && self.left.load(Ordering::Relaxed) > 0
            && now_ms() < self.until_ms.load(Ordering::Relaxed);
        holds.then(|| self.amount.load(Ordering::Relaxed))
    }

    /// Counts that it does something; false: others have used it up meanwhile.
    pub fn count(&self) -> bool {
        let one_less = |left: u64| match left {
            ALWAYS => Some(ALWAYS),
            left => left.checked_sub(1),
        };
        let took = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok();
        self.times.fetch_add(u64::from(took), Ordering::Relaxed);
        took
    }
}

/// The page, as it is mapped.
#[derive(Debug)]
#[repr(C)]
pub struct Page {
    magic: AtomicU64,
    version: AtomicU32,
    process: AtomicU32,
    prefix_length: AtomicU32,
    _unused: u32,
    settings: [Setting; 5],
    prefix: [AtomicU8; PREFIX_BYTES_MAX],
}

const _: () = assert!(size_of::<Page>() == BYTES && offset_of!(Page, prefix) == 224);

impl Page {
    /// Whether it is one, of this version.
    pub fn is_known(&self) -> bool {
        self.magic.load(Ordering::Acquire) == MAGIC
            && self.version.load(Ordering::Relaxed) == VERSION
    }

    /// From now on that process obeys it.
    pub fn attach(&self, process: u32) {
        self.process.store(process, Ordering::Release);
    }

    /// One of its levers.
    pub fn setting(&self, lever: Lever) -> &Setting {
        &self.settings[lever as usize]
    }

    /// Whether that file is one of those whose disk is meant.
    pub fn is_below(&self, path: &[u8]) -> bool {
        let length = self.prefix_length.load(Ordering::Relaxed) as usize;
        let Some(prefix) = self.prefix.get(..length) else {
            return false;
        };
        let begins = path
            .iter()
            .zip(prefix)
            .all(|(byte, own)| *byte == own.load(Ordering::Relaxed));
        length > 0
            && path.len() >= length
            && begins
            && path.get(length).is_none_or(|next| *next == b'/')
    }
}

/// The bytes of a page that says nothing yet, for files below `prefix`, which is as the system itself writes it: absolute and
/// without links. None: it is empty, or too long.
pub fn fresh(prefix: &[u8]) -> Option<Vec<u8>> {
    if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; BYTES];
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(offset_of!(Page, magic), &MAGIC.to_ne_bytes());
    put(offset_of!(Page, version), &VERSION.to_ne_bytes());
    let length = prefix.len() as u32;
    put(offset_of!(Page, prefix_length), &length.to_ne_bytes());
    put(offset_of!(Page, prefix), prefix);
    Some(bytes)
}

/// The bytes of a lever's measures.
pub fn measures(until_ms: u64, amount: u64, left: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (place, number) in bytes.chunks_exact_mut(8).zip([until_ms, amount, left]) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library maps, made from the bytes that the harness writes.
    fn mapped(bytes: &[u8]) -> Page {
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        Page {
            magic: AtomicU64::new(u64_at(0)),
            version: AtomicU32::new(u32_at(8)),
            process: AtomicU32::new(u32_at(12)),
            prefix_length: AtomicU32::new(u32_at(16)),
            _unused: 0,
            settings: Lever::ALL.map(|lever| {
                let at = 24 + 40 * lever as usize;
                Setting {
                    on: AtomicU8::new(bytes[at]),
                    _unused: [0; 7],
                    until_ms: AtomicU64::new(u64_at(at + 8)),
                    amount: AtomicU64::new(u64_at(at + 16)),
                    left: AtomicU64::new(u64_at(at + 24)),
                    times: AtomicU64::new(u64_at(at + 32)),
                }
            }),
            prefix: std::array::from_fn(|index| AtomicU8::new(bytes[224 + index])),
        }
    }

    fn set(lever: Lever, until_ms: u64, amount: u64, left: u64) -> Page {
        let mut bytes = fresh(b"/data/one").unwrap();
        let at = lever.at_measures();
        bytes[at..at + 24].copy_from_slice(&measures(until_ms, amount, left));
        bytes[lever.at_on()] = 1;
        mapped(&bytes)
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let places = Lever::ALL.map(|lever| (lever.at_on(), lever.at_measures(), lever.at_times()));
        let expected = [24, 64, 104, 144, 184].map(|at| (at, at + 8, at + 32));
        assert_eq!(places, expected);
        assert_eq!(AT_PROCESS, 12);
    }

    #[test]
    fn a_fresh_page_is_known_and_says_nothing() {
        let page = mapped(&fresh(b"/data/one").unwrap());
        assert!(page.is_known());
        for lever in Lever::ALL {
            assert_eq!(page.setting(lever).holds(|| 0), None, "{lever:?}");
        }
        assert!(!mapped(&[0; BYTES]).is_known());
        assert_eq!(fresh(b""), None);
        assert_eq!(fresh(&[b'a'; BYTES]), None);
    }

    #[test]
    fn a_lever_does_nothing_after_its_time_and_moves_no_other() {
        for lever in Lever::ALL {
            let page = set(lever, 1_000, 7, ALWAYS);
            for other in Lever::ALL {
                let expected = (other == lever).then_some(7);
                assert_eq!(page.setting(other).holds(|| 999), expected);
                assert_eq!(page.setting(other).holds(|| 1_000), None);
            }
        }
    }

    #[test]
    fn what_may_happen_twice_happens_twice_and_is_counted() {
        let page = set(Lever::SyncError, 1_000, 1_000, 2);
        let setting = page.setting(Lever::SyncError);
        let done: Vec<bool> = (0..4)
            .map(|_| setting.holds(|| 0).is_some() && setting.count())
            .collect();
        assert_eq!(done, [true, true, false, false]);
        assert!(!setting.count());
        assert_eq!(setting.times.load(Ordering::Relaxed), 2);
        let page = set(Lever::Full, 1_000, 0, ALWAYS);
        assert!((0..9).all(|_| page.setting(Lever::Full).count()));
        assert_eq!(
            page.setting(Lever::Full).left.load(Ordering::Relaxed),
            ALWAYS
        );
    }

    #[test]
    fn only_files_below_the_prefix_are_meant() {
        let page = mapped(&fresh(b"/data/one").unwrap());
        for (path, expected) in [
            ("/data/one", true),
            ("/data/one/raft/log/0.log", true),
            ("/data/one/gone (deleted)", true),
            ("/data/one-more/x", false),
            ("/data/on", false),
            ("/data", false),
            ("pipe:[17]", false),
            ("", false),
        ] {
            assert_eq!(page.is_below(path.as_bytes()), expected, "{path}");
        }
    }
}
