//! The terminal of a process that the runtime starts with `terminal`: a pty of the guest, whose master side is the process's host
//! streams. Two threads of the library OS move the bytes; they sleep whenever there is nothing to move.

use super::job::controlling_of;
use super::pty;
use super::terminal::Terminal;
use super::termios::WindowSize;
use crate::background;
use crate::errno::{Errno, EAGAIN};
use crate::fs::behind::DRAIN_PATIENCE;
use crate::fs::file::{O_NONBLOCK, O_RDWR};
use crate::fs::{stream, Events, OpenFile};
use crate::io::IoBuffer;
use crate::process::{Process, Task};
use crate::wait::{wait_on, Interruptible, WaitQueue};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use hal::sync::SpinLock;
use linux_abi::fs::O_NOCTTY;

/// Bytes that are written to the host at a time.
const PIECE: usize = 16384;
/// A stream that the runtime did not give.
const NO_STREAM: u32 = u32::MAX;

/// A terminal whose other side is the host, as its printing thread sees it.
struct Printer {
    terminal: Arc<Terminal>,
    output: Arc<OpenFile>,
    /// Taken from the terminal, and not at the host yet.
    writing: AtomicBool,
    changed: WaitQueue,
}

impl Printer {
    /// Bytes that the host does not have yet, and one more while some are on their way.
    fn unwritten(&self) -> usize {
        let core = self.terminal.core.lock();
        if core.master_left {
            return 0;
        }
        core.output_count() + usize::from(self.writing.load(Ordering::SeqCst))
    }
}

static PRINTERS: SpinLock<Vec<Weak<Printer>>> = SpinLock::new(Vec::new());

/// The first one is the container's console.
static CONSOLE: SpinLock<Option<Weak<Terminal>>> = SpinLock::new(None);

pub(super) fn the_console() -> Option<Arc<Terminal>> {
    CONSOLE.lock().as_ref().and_then(Weak::upgrade)
}

/// A new terminal as controlling terminal of the task's session, its other side at the host's streams: to become descriptors 0, 1 and 2.
pub fn console(task: &Arc<Task>, streams: [u32; 3], rows: u16, columns: u16) -> Result<Arc<OpenFile>, Errno> {
    const TTY_GROUP: u32 = 5;
    let [stdin, stdout, _] = streams;
    let terminal = pty::create((task.credentials().uid, TTY_GROUP))?;
    {
        let mut core = terminal.core.lock();
        core.locked = false;
        core.window = WindowSize { rows, columns, x_pixels: 0, y_pixels: 0 };
    }
    CONSOLE.lock().get_or_insert_with(|| Arc::downgrade(&terminal));
    let slave = pty::open_file(task, &terminal, O_RDWR | O_NOCTTY)?;
    terminal.attach(&task.process);
    let output = stream::open(stdout, None)?;
    if stdin == stdout {
        let (input, typed) = (output.clone(), terminal.clone());
        background::spawn("tty-input", Box::new(move || type_from(&input, &typed, true)))?;
    } else if stdin != NO_STREAM {
        let (input, typed) = (stream::open(stdin, None)?, terminal.clone());
        input.set_flags(O_RDWR | O_NONBLOCK);
        background::spawn("tty-input", Box::new(move || type_from(&input, &typed, false)))?;
    }
    let printer = Arc::new(Printer { terminal, output, writing: AtomicBool::new(false), changed: WaitQueue::new() });
    let mut printers = PRINTERS.lock();
    printers.retain(|old| old.strong_count() > 0);
    printers.push(Arc::downgrade(&printer));
    drop(printers);
    background::spawn("tty-output", Box::new(move || print(&printer)))?;
    Ok(slave)
}

/// A new window size for the controlling terminal of a process that was started from outside.
pub fn resize(process: &Arc<Process>, rows: u16, columns: u16) {
    if let Some(terminal) = controlling_of(process) {
        terminal.resize(WindowSize { rows, columns, x_pixels: 0, y_pixels: 0 });
    }
}

/// Host to guest, until the host side or the terminal ends. `hangs_up`: the end of the host side is the end of the terminal (it is a
/// terminal itself, not just the runtime's standard input).
fn type_from(input: &OpenFile, terminal: &Arc<Terminal>, hangs_up: bool) {
    let mut bytes = [0; 1024];
    let ended = || terminal.core.lock().master_left;
    while !ended() {
        if !readable(input) {
            let queues = [input.ops.poll_queue(input), Some(&terminal.master_queue)];
            let queues: Vec<&WaitQueue> = queues.into_iter().flatten().collect();
            let ready = || (readable(input) || ended()).then_some(());
            let _ = wait_on(&queues, Interruptible::No, None, ready);
            continue;
        }
        let count = match input.ops.read(input, &mut IoBuffer::fill(&mut bytes)) {
            Err(EAGAIN) => continue,
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let mut rest = &bytes[..count];
        while !rest.is_empty() && !ended() {
            let taken = terminal.type_bytes(rest);
            rest = &rest[taken..];
            if !rest.is_empty() {
                let ready = || (terminal.core.lock().pending_room() > 0 || ended()).then_some(());
                let _ = terminal.master_queue.wait(Interruptible::No, None, ready);
            }
        }
    }
    if hangs_up {
        terminal.master_closed();
    }
}

fn readable(input: &OpenFile) -> bool {
    input.ops.poll(input).intersects(Events::IN | Events::HUP | Events::ERR | Events::RDHUP)
}

/// Waits until what was printed on the container's terminals is at the host: the machine is about to end, and its threads with it.
pub fn drain() {
    drain_where(|_| true);
}

/// The same for one process that was started from outside: once it has ended, nobody may be there to take more.
pub fn drain_of(process: &Arc<Process>) {
    if let Some(terminal) = controlling_of(process) {
        drain_where(|printer| Arc::ptr_eq(&printer.terminal, &terminal));
    }
}

fn drain_where(wanted: impl Fn(&Printer) -> bool) {
    let printers: Vec<Arc<Printer>> = PRINTERS.lock().iter().filter_map(Weak::upgrade).collect();
    for printer in printers.into_iter().filter(|printer| wanted(printer)) {
        printer.changed.drain(DRAIN_PATIENCE, || printer.unwritten());
    }
}

/// Guest to host, until every slave is closed and all is written.
fn print(printer: &Printer) {
    let Printer { terminal, output, .. } = printer;
    let ended = || {
        let core = terminal.core.lock();
        core.slave_left || core.master_left
    };
    loop {
        let last = ended(); // before the look at the output, of which the last may come right before the end
        printer.writing.store(true, Ordering::SeqCst);
        if let Some(bytes) = terminal.take_output(PIECE) {
            let mut buffer = IoBuffer::take(&bytes);
            while buffer.remaining() > 0 {
                match output.ops.write(output, &mut buffer) {
                    Ok(count) if count > 0 => {}
                    _ => break,
                }
            }
            printer.changed.wake_all();
            continue;
        }
        printer.writing.store(false, Ordering::SeqCst);
        printer.changed.wake_all();
        if last {
            break;
        }
        let ready = || (terminal.core.lock().output_count() > 0 || ended()).then_some(());
        let _ = terminal.master_queue.wait(Interruptible::No, None, ready);
    }
    pty::remove(terminal.index);
    terminal.master_closed();
}
