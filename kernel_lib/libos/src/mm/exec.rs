//! A program's image: what execve(2) puts into a new address space.

use super::elf::{self, Flaw, Header, Program, Segment, HEADER_BYTES, PROGRAM_HEADER_BYTES};
use super::map::{Limits, Place, Request};
use super::space::{AddressSpace, Layout};
use super::stack;
use super::vma::{Flags, Mapping, STACK_GAP};
use super::{vdso, Pages, Source, PAGE_SIZE};
use crate::errno::{Errno, E2BIG, EINVAL, EIO, ELIBBAD, ENOEXEC, ENOMEM};
use abi::layout::LIBOS_BASE;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::context::UserContext;
use hal::paging::Rights;
use hal::sync::Once;

/// Where position-independent programs go without randomization; two thirds up as in Linux.
const PROGRAM_BASE: u64 = 0x5555_5555_4000;
/// Pages of randomness. Where a program lies is chosen in two steps: the 2 MiB block once per boot (of programs; of the mmap area, which
/// stays in one top-level slot with the stack; of the stack), the page in it at each execve. So every program's page tables have the
/// same shape, and one that ended hands its tables on to the next. Where they are shadowed, programs and the mmap area keep their page,
/// too (docs/decisions/0017): the leaf tables then say the same again.
const PROGRAM_RANDOM: u64 = 1 << 28;
const MMAP_RANDOM: u64 = 1 << 26;
const STACK_RANDOM: u64 = 1 << 22;
const PAGE_RANDOM: u64 = 1 << 9;
/// What has a place of its own: numbers of the random words.
const STACK: usize = 0;
const MMAP: usize = 1;
const PROGRAM: usize = 2;
const BREAK: usize = 3;
const BLOCK: u64 = PAGE_RANDOM * PAGE_SIZE;
/// Room for the stack to grow, whatever its limit says.
const STACK_ROOM_MIN: u64 = 128 << 20;
const STACK_ROOM_MAX: u64 = 64 << 30;
/// Below what is in use the stack is mapped so far at once.
const STACK_AHEAD: u64 = 32 * PAGE_SIZE;
const STACK_TOUCHED: u64 = 12 * PAGE_SIZE;
/// execve(2): bytes of one string, and of all.
const STRING_MOST: usize = 128 << 10;
const STRINGS_MOST: u64 = 6 << 20;
const STRINGS_ALWAYS: u64 = 128 << 10;

static BOOT_RANDOM: Once<[u8; 48]> = Once::new();

/// Everything that is needed to set a program up.
pub struct Image<'a> {
    pub file: Arc<dyn Pages>,
    /// Resolves PT_INTERP: opens the file and checks that it may be executed.
    pub interpreter: &'a dyn Fn(&[u8]) -> Result<Arc<dyn Pages>, Errno>,
    pub argv: &'a [Vec<u8>],
    pub envp: &'a [Vec<u8>],
    /// AT_EXECFN: the name as it was given to execve.
    pub name: &'a [u8],
    /// AT_UID, AT_EUID, AT_GID, AT_EGID.
    pub ids: [u32; 4],
    /// AT_SECURE: credentials were raised.
    pub secure: bool,
    /// RLIMIT_STACK.
    pub stack_limit: u64,
    /// personality(2): ADDR_NO_RANDOMIZE.
    pub fixed_addresses: bool,
    /// Fresh random bytes: AT_RANDOM, and where things go.
    pub random: [u8; 48],
}

/// Where a file was mapped.
struct Placed {
    bias: u64,
    entry: u64,
    headers_at: u64,
    header_count: u64,
    program: Program,
}

/// Sets up a new address space for a program. ENOEXEC: not an ELF program for this machine; ELIBBAD: its interpreter is none; EINVAL:
/// headers that make no sense; E2BIG; ENOMEM; or what the interpreter's resolver says.
pub fn load(image: &Image<'_>) -> Result<(Arc<AddressSpace>, UserContext), Errno> {
    check_strings(image)?;
    // Mapped until the segments are: what is read below stays where it is.
    let _held = Mapping::new(image.file.clone(), false, Rights::READ);
    let header = read_header(image.file.as_ref()).map_err(|flaw| flaw.unwrap_or(ENOEXEC))?;
    let program = read_program(image.file.as_ref(), &header, ENOEXEC)?;
    let interpreter = match program.interpreter {
        Some((offset, bytes)) => Some((image.interpreter)(&interpreter_name(image.file.as_ref(), offset, bytes)?)?),
        None => None,
    };

    let boot = BOOT_RANDOM.get_or_init(|| image.random);
    let word = |bytes: &[u8; 48], index: usize| u64::from_le_bytes(bytes[16 + index * 8..24 + index * 8].try_into().unwrap_or_default());
    let random = |index: usize, pages: u64| {
        // The page's bits come from above those that chose the block: the first program's are no different from the others'.
        let page = if matches!(index, MMAP | PROGRAM) && hal::cpu::has_shadow_paging() { boot } else { &image.random };
        let offset = word(boot, index) % (pages / PAGE_RANDOM) * BLOCK + (word(page, index) >> 32) % PAGE_RANDOM * PAGE_SIZE;
        if image.fixed_addresses {
            0
        } else {
            offset
        }
    };
    let stack_top = LIBOS_BASE - PAGE_SIZE - random(STACK, STACK_RANDOM);
    let stack_room = image.stack_limit.clamp(STACK_ROOM_MIN, STACK_ROOM_MAX) + STACK_GAP;
    let mmap_top = LIBOS_BASE - PAGE_SIZE - STACK_RANDOM * PAGE_SIZE - stack_room.next_multiple_of(PAGE_SIZE) - random(MMAP, MMAP_RANDOM);
    let (device, inode) = image.file.identity();
    let kind = device.rotate_left(32) ^ inode;
    let space = AddressSpace::new(Layout { mmap_top, fixed: image.fixed_addresses, ..Layout::default() }, kind)?;

    let program_base = (PROGRAM_BASE + random(PROGRAM, PROGRAM_RANDOM)) & !(program.align - 1);
    let main = place(&space, image.file.clone(), &header, program, Some(program_base))?;
    let (entry, base) = match interpreter {
        Some(file) => {
            let _held = Mapping::new(file.clone(), false, Rights::READ);
            let header = read_header(file.as_ref()).map_err(|flaw| flaw.unwrap_or(ELIBBAD))?;
            let program = read_program(file.as_ref(), &header, ELIBBAD)?;
            let placed = place(&space, file, &header, program, None)?;
            (placed.entry, placed.bias)
        }
        None => (main.entry, 0),
    };
    let vdso_at = vdso::map(&space)?;
    if finds_vdso(image.file.as_ref(), &main.program) {
        space.set_layout(|layout| layout.sigreturn = vdso_at + hal::vdso::sigreturn_offset());
    }

    let mut auxv = Vec::with_capacity(20);
    auxv.extend_from_slice(&[
        (stack::AT_SYSINFO_EHDR, vdso_at),
        (stack::AT_MINSIGSTKSZ, signal_frame_bytes()),
        (stack::AT_HWCAP, u64::from(hal::cpu::feature_bits())),
        (stack::AT_PAGESZ, PAGE_SIZE),
        (stack::AT_CLKTCK, 100),
        (stack::AT_PHDR, main.headers_at),
        (stack::AT_PHENT, PROGRAM_HEADER_BYTES as u64),
        (stack::AT_PHNUM, main.header_count),
        (stack::AT_BASE, base),
        (stack::AT_FLAGS, 0),
        (stack::AT_ENTRY, main.entry),
        (stack::AT_UID, u64::from(image.ids[0])),
        (stack::AT_EUID, u64::from(image.ids[1])),
        (stack::AT_GID, u64::from(image.ids[2])),
        (stack::AT_EGID, u64::from(image.ids[3])),
        (stack::AT_SECURE, u64::from(image.secure)),
        // No FSGSBASE bit: GS base is the library OS's.
        (stack::AT_HWCAP2, 0),
    ]);
    // Within its page the stack begins anywhere, too.
    let lower = if image.fixed_addresses { 0 } else { (word(&image.random, 0) >> 44) % 256 * 16 };
    let pointer = set_up_stack(&space, image, (stack_top, lower), &auxv, main.program.executable_stack)?;
    set_marks(&space, &main, random(BREAK, PAGE_RANDOM));
    Ok((space, UserContext::new(entry, pointer)))
}

fn check_strings(image: &Image<'_>) -> Result<(), Errno> {
    if image.argv.iter().chain(image.envp).any(|text| text.len() >= STRING_MOST) {
        return Err(E2BIG);
    }
    let most = (image.stack_limit / 4).clamp(STRINGS_ALWAYS, STRINGS_MOST);
    if stack::size(image.argv, image.envp, image.name) > most {
        return Err(E2BIG);
    }
    Ok(())
}

/// Bytes of an object. EIO: it ends before.
fn read(pages: &dyn Pages, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
    let end = offset.checked_add(out.len() as u64).filter(|&end| end <= pages.size()).ok_or(EIO)?;
    let mut at = offset;
    while at < end {
        let bytes = (PAGE_SIZE - at % PAGE_SIZE).min(end - at) as usize;
        let page = pages.page(at / PAGE_SIZE, false).map_err(|_| EIO)?;
        let done = (at - offset) as usize;
        hal::phys::read(page.address() + at % PAGE_SIZE, &mut out[done..done + bytes]);
        at += bytes as u64;
    }
    Ok(())
}

/// Err(None): not an ELF file for us.
fn read_header(pages: &dyn Pages) -> Result<Header, Option<Errno>> {
    let mut bytes = [0; HEADER_BYTES];
    let there = (pages.size() as usize).min(HEADER_BYTES);
    read(pages, 0, &mut bytes[..there]).map_err(Some)?;
    Header::parse(&bytes[..there]).map_err(|_| None)
}

fn read_program(pages: &dyn Pages, header: &Header, not_for_us: Errno) -> Result<Program, Errno> {
    let mut table = alloc::vec![0; header.table_bytes()];
    read(pages, header.program_headers, &mut table).map_err(|_| not_for_us)?;
    Program::parse(header, &table).map_err(|flaw| if flaw == Flaw::NotForUs { not_for_us } else { EINVAL })
}

/// Whether the program's unwinder finds the vDSO's tables: the dynamic linkers list it among the objects, and so does the GNU C
/// library's static start-up. Others' unwinders know a signal frame by the restorer's bytes.
fn finds_vdso(pages: &dyn Pages, program: &Program) -> bool {
    let is_gnu = |&(offset, bytes): &(u64, u64)| {
        let mut notes = alloc::vec![0; bytes as usize];
        read(pages, offset, &mut notes).is_ok() && elf::is_gnu(&notes)
    };
    program.interpreter.is_some() || program.notes.iter().any(is_gnu)
}

fn interpreter_name(pages: &dyn Pages, offset: u64, bytes: u64) -> Result<Vec<u8>, Errno> {
    let mut name = alloc::vec![0; bytes as usize];
    read(pages, offset, &mut name)?;
    // Linux wants the NUL to be the last byte.
    if name.pop() != Some(0) {
        return Err(ENOEXEC);
    }
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    Ok(name)
}

/// Maps a file's segments: at their own addresses, at `base`, or wherever mmap would put them.
fn place(space: &AddressSpace, file: Arc<dyn Pages>, header: &Header, program: Program, base: Option<u64>) -> Result<Placed, Errno> {
    let (low, high) = program.span();
    let bias = if header.position_independent() {
        let base = match base {
            Some(base) => base,
            None => space.room(high - low, program.align)?,
        };
        if base.checked_add(high - low).is_none_or(|end| end > LIBOS_BASE) {
            return Err(ENOMEM);
        }
        base.wrapping_sub(low)
    } else {
        0
    };
    for segment in &program.segments {
        map_segment(space, &file, segment, bias)?;
    }
    Ok(Placed {
        bias,
        entry: header.entry.wrapping_add(bias),
        headers_at: program.headers_at.wrapping_add(bias),
        header_count: u64::from(header.program_header_count),
        program,
    })
}

fn map_segment(space: &AddressSpace, file: &Arc<dyn Pages>, segment: &Segment, bias: u64) -> Result<(), Errno> {
    let (start, file_end, end) = (segment.start + bias, segment.file_end + bias, segment.end + bias);
    let file_pages_end = if file_end > start { file_end.next_multiple_of(PAGE_SIZE) } else { start };
    let part = |start: u64, end: u64, source: Source| Request {
        place: Place::FixedIfFree(start),
        bytes: end - start,
        rights: segment.rights,
        flags: Flags::default(),
        source,
        populate: false,
        name: "",
    };
    // What FIXED_NOREPLACE refuses, Linux refuses as well (a segment over another or over the stack).
    let map = |request| space.map(request, &Limits::NONE).map_err(|error| if error == ENOMEM { error } else { EINVAL });
    if file_pages_end > start {
        let max_rights = Rights { read: true, write: true, execute: true };
        let source = Source::Object { pages: file.clone(), offset: segment.offset, shared: false, max_rights };
        map(part(start, file_pages_end, source))?;
        if segment.rights.write && file_end < file_pages_end && end > file_end {
            // The rest of the last page is bss. A file that ends before is left to SIGBUS.
            let zeros = [0u8; PAGE_SIZE as usize];
            let bytes = (file_pages_end - file_end) as usize;
            space.write(file_end, &zeros[..bytes], false);
        }
    }
    let end = end.next_multiple_of(PAGE_SIZE);
    if end > file_pages_end {
        map(part(file_pages_end, end, Source::Anonymous))?;
    }
    Ok(())
}

fn set_up_stack(
    space: &AddressSpace,
    image: &Image<'_>,
    (top, lower): (u64, u64),
    auxv: &[(u64, u64)],
    executable: bool,
) -> Result<u64, Errno> {
    let random: [u8; 16] = image.random[..16].try_into().unwrap_or_default();
    let built = stack::build(top - lower, image.argv, image.envp, image.name, &random, auxv);
    let start = (built.pointer & !(PAGE_SIZE - 1)) - STACK_AHEAD;
    space.map(
        Request {
            place: Place::FixedIfFree(start),
            bytes: top - start,
            rights: Rights { execute: executable, ..Rights::READ_WRITE },
            flags: Flags::GROWS_DOWN.with(Flags::MAIN_STACK),
            source: Source::Anonymous,
            populate: false,
            name: "[stack]",
        },
        &Limits::NONE,
    )?;
    space.fill_ahead((built.pointer & !(PAGE_SIZE - 1)) - STACK_TOUCHED, top);
    if space.write(built.pointer, &built.bytes, false) != built.bytes.len() {
        return Err(ENOMEM);
    }
    *space.auxv.lock() = Arc::from(built.auxv);
    space.set_layout(|layout| {
        layout.start_stack = built.pointer;
        (layout.arg_start, layout.arg_end) = (built.arg_start, built.arg_end);
        (layout.env_start, layout.env_end) = (built.env_start, built.env_end);
    });
    Ok(built.pointer)
}

fn set_marks(space: &AddressSpace, main: &Placed, brk_random: u64) {
    let end = main.program.span().1.wrapping_add(main.bias);
    let mut inner = space.inner.lock();
    inner.brk = end + brk_random;
    let layout = &mut inner.layout;
    layout.start_brk = end + brk_random;
    for segment in &main.program.segments {
        let (start, file_end) = (segment.start + main.bias, segment.file_end + main.bias);
        if segment.rights.execute {
            layout.start_code = if layout.start_code == 0 { start } else { layout.start_code.min(start) };
            layout.end_code = layout.end_code.max(file_end);
        }
        if segment.rights.write || layout.start_data == 0 {
            (layout.start_data, layout.end_data) = (start, file_end);
        }
    }
}

/// AT_MINSIGSTKSZ: the frame of a signal with everything in it (siginfo, ucontext, extended state and its alignment, red zone).
fn signal_frame_bytes() -> u64 {
    (hal::xstate::features().1 as u64 + 4 + 440 + 64 + 128 + 16).next_multiple_of(16)
}
