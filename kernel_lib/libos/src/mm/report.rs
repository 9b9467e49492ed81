//! What /proc/PID shows of memory: maps, smaps, statm, and the Vm lines of status (proc(5)).

use super::space::AddressSpace;
use super::vma::{Backing, Flags, Vma};
use super::PAGE_SIZE;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use hal::paging::Entry;

/// Bytes, as the Vm lines of /proc/PID/status name them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub peak: u64,
    pub size: u64,
    pub locked: u64,
    pub peak_resident: u64,
    pub resident_anonymous: u64,
    pub resident_file: u64,
    pub resident_shared: u64,
    pub data: u64,
    pub stack: u64,
    pub executable: u64,
    pub libraries: u64,
    pub tables: u64,
}

impl Usage {
    pub const fn resident(&self) -> u64 {
        self.resident_anonymous + self.resident_file + self.resident_shared
    }

    /// /proc/PID/statm.
    pub fn statm(&self) -> String {
        let pages = |bytes: u64| bytes / PAGE_SIZE;
        format!(
            "{} {} {} {} 0 {} 0\n",
            pages(self.size),
            pages(self.resident()),
            pages(self.resident_file + self.resident_shared),
            pages(self.executable),
            pages(self.data + self.stack)
        )
    }

    /// The Vm and Rss lines of /proc/PID/status.
    pub fn status(&self) -> String {
        let rows = [
            ("VmPeak", self.peak),
            ("VmSize", self.size),
            ("VmLck", self.locked),
            ("VmPin", 0),
            ("VmHWM", self.peak_resident),
            ("VmRSS", self.resident()),
            ("RssAnon", self.resident_anonymous),
            ("RssFile", self.resident_file),
            ("RssShmem", self.resident_shared),
            ("VmData", self.data),
            ("VmStk", self.stack),
            ("VmExe", self.executable),
            ("VmLib", self.libraries),
            ("VmPTE", self.tables),
            ("VmSwap", 0),
        ];
        rows.iter().fold(String::new(), |text, (name, bytes)| text + &format!("{name}:\t{:8} kB\n", bytes >> 10))
    }
}

/// What is resident of one VMA, in bytes.
#[derive(Clone, Copy, Default)]
struct Resident {
    file: u64,
    anonymous: u64,
    shared_clean: u64,
    private_dirty: u64,
    shared_dirty: u64,
}

impl AddressSpace {
    pub fn usage(&self) -> Usage {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.note_peaks();
        let totals = inner.map.totals();
        let mut usage = Usage {
            peak: inner.peak_bytes,
            size: totals.bytes,
            locked: totals.locked,
            peak_resident: inner.peak_resident as u64 * PAGE_SIZE,
            stack: totals.stack,
            tables: inner.table.table_pages() as u64 * PAGE_SIZE,
            data: totals.data,
            ..Usage::default()
        };
        let own = inner.layout.start_code..inner.layout.end_code;
        usage.executable = (own.end.next_multiple_of(PAGE_SIZE) - (own.start & !(PAGE_SIZE - 1))).min(totals.bytes);
        usage.libraries = totals.executable.saturating_sub(usage.executable);
        let (ram, window) = inner.resident();
        usage.resident_file = window as u64 * PAGE_SIZE;
        for vma in inner.map.iter().filter(|vma| vma.shared()) {
            inner.table.scan(vma.start, vma.end, |_, entry| usage.resident_shared += u64::from(entry.ram) * PAGE_SIZE);
        }
        for vma in inner.map.iter().filter(|vma| !vma.shared() && !vma.anonymous()) {
            inner.table.scan(vma.start, vma.end, |_, entry| usage.resident_file += u64::from(is_copy(vma, entry)) * PAGE_SIZE);
        }
        let others = usage.resident_shared + usage.resident_file - window as u64 * PAGE_SIZE;
        usage.resident_anonymous = (ram as u64 * PAGE_SIZE).saturating_sub(others);
        usage
    }

    fn shown(&self) -> Vec<Vma> {
        self.inner.lock().map.iter().filter(|vma| !vma.flags.has(Flags::HIDDEN)).cloned().collect()
    }

    /// /proc/PID/maps.
    pub fn maps(&self) -> String {
        let start_stack = self.layout().start_stack;
        self.shown().iter().fold(String::new(), |mut text, vma| {
            line(&mut text, vma, start_stack);
            text
        })
    }

    /// /proc/PID/smaps, or with `rollup` its sum (/proc/PID/smaps_rollup).
    pub fn smaps(&self, rollup: bool) -> String {
        let start_stack = self.layout().start_stack;
        let mut text = String::new();
        let mut sum = (Resident::default(), 0);
        let shown = self.shown();
        for vma in &shown {
            let resident = self.resident_of(vma);
            if rollup {
                let total = &mut sum.0;
                total.file += resident.file;
                total.anonymous += resident.anonymous;
                total.shared_clean += resident.shared_clean;
                total.private_dirty += resident.private_dirty;
                total.shared_dirty += resident.shared_dirty;
                sum.1 += if vma.flags.has(Flags::LOCKED) { resident.file + resident.anonymous } else { 0 };
                continue;
            }
            line(&mut text, vma, start_stack);
            let _ = writeln!(text, "Size:           {:8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB", vma.bytes() >> 10);
            rows(&mut text, &resident, if vma.flags.has(Flags::LOCKED) { resident.file + resident.anonymous } else { 0 });
            let _ = writeln!(text, "THPeligible:           0\nVmFlags:{}", flag_names(vma));
        }
        if rollup {
            if let (Some(first), Some(last)) = (shown.first(), shown.last()) {
                let _ = writeln!(text, "{:08x}-{:08x} ---p 00000000 00:00 0                          [rollup]", first.start, last.end);
            }
            rows(&mut text, &sum.0, sum.1);
        }
        text
    }

    fn resident_of(&self, vma: &Vma) -> Resident {
        let mut resident = Resident::default();
        let shared = vma.shared();
        let mut inner = self.inner.lock();
        inner.table.scan(vma.start, vma.end, |_, entry| match (entry.ram, shared) {
            (true, false) if is_copy(vma, entry) => {
                resident.file += PAGE_SIZE;
                resident.shared_clean += PAGE_SIZE;
            }
            (true, false) => {
                resident.anonymous += PAGE_SIZE;
                if entry.references == 1 {
                    resident.private_dirty += PAGE_SIZE;
                } else {
                    resident.shared_dirty += PAGE_SIZE;
                }
            }
            (true, true) => {
                resident.file += PAGE_SIZE;
                resident.shared_dirty += PAGE_SIZE;
            }
            (false, _) => {
                resident.file += PAGE_SIZE;
                resident.shared_clean += PAGE_SIZE;
            }
        });
        resident
    }
}

/// A file's page that is shown as a shared copy (`copies`, patched code).
fn is_copy(vma: &Vma, entry: &Entry) -> bool {
    entry.ram && entry.references > 1 && !entry.rights.write && !vma.shared() && !vma.anonymous()
}

fn rows(text: &mut String, resident: &Resident, locked: u64) {
    let total = resident.file + resident.anonymous;
    // Nobody else's share is known cheaply: a shared page counts for half.
    let proportional = resident.private_dirty + (resident.shared_clean + resident.shared_dirty) / 2;
    let rows = [
        ("Rss", total),
        ("Pss", proportional),
        ("Pss_Dirty", resident.private_dirty + resident.shared_dirty / 2),
        ("Shared_Clean", resident.shared_clean),
        ("Shared_Dirty", resident.shared_dirty),
        ("Private_Clean", 0),
        ("Private_Dirty", resident.private_dirty),
        ("Referenced", total),
        ("Anonymous", resident.anonymous),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", locked),
    ];
    for (name, bytes) in rows {
        let _ = writeln!(text, "{:16}{:8} kB", format!("{name}:"), bytes >> 10);
    }
}

/// One line of /proc/PID/maps.
fn line(text: &mut String, vma: &Vma, start_stack: u64) {
    let (offset, (device, inode), name) = match &vma.backing {
        Backing::Object(mapping, offset) if vma.name.is_empty() => (*offset, mapping.pages.identity(), mapping.pages.name()),
        _ => (0, (0, 0), String::from(vma.name)),
    };
    let name = if vma.start <= start_stack && start_stack < vma.end { String::from("[stack]") } else { name };
    let bit = |on: bool, letter: char| if on { letter } else { '-' };
    // makedev(3): major in bits 8..20 and 32.., minor in 0..8 and 20..32.
    let (major, minor) = (device >> 8 & 0xfff | device >> 32 & !0xfff, device & 0xff | device >> 12 & 0xfff00);
    let head = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        vma.start,
        vma.end,
        bit(vma.rights.read, 'r'),
        bit(vma.rights.write, 'w'),
        bit(vma.rights.execute, 'x'),
        if vma.shared() { 's' } else { 'p' },
        offset,
        major,
        minor,
        inode
    );
    if name.is_empty() {
        let _ = writeln!(text, "{head}");
    } else {
        // A name cannot end the line.
        let _ = writeln!(text, "{head:<73}{}", name.replace('\n', "\\012"));
    }
}

fn flag_names(vma: &Vma) -> String {
    let max = vma.max_rights();
    let flags = [
        (vma.rights.read, "rd"),
        (vma.rights.write, "wr"),
        (vma.rights.execute, "ex"),
        (vma.shared(), "sh"),
        (max.read, "mr"),
        (max.write, "mw"),
        (max.execute, "me"),
        (vma.shared() && max.write, "ms"),
        (vma.flags.has(Flags::GROWS_DOWN), "gd"),
        (vma.flags.has(Flags::LOCKED), "lo"),
        (vma.flags.has(Flags::SEQUENTIAL), "sr"),
        (vma.flags.has(Flags::RANDOM), "rr"),
        (vma.flags.has(Flags::DONT_FORK), "dc"),
        (vma.flags.has(Flags::SPECIAL), "de"),
        (vma.flags.has(Flags::NO_RESERVE), "nr"),
        (vma.flags.has(Flags::WIPE_ON_FORK), "wf"),
        (vma.flags.has(Flags::DONT_DUMP), "dd"),
        (vma.flags.has(Flags::HUGE), "hg"),
        (vma.flags.has(Flags::NO_HUGE), "nh"),
        (vma.flags.has(Flags::MERGEABLE), "mg"),
    ];
    flags.iter().filter(|(on, _)| *on).fold(String::new(), |text, (_, name)| text + " " + name)
}
