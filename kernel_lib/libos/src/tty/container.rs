//! The terminal of a process that the runtime starts with `terminal`: a pty of the guest, whose master side is the process's host
//! streams. Two threads of the library OS move the bytes; they sleep whenever there is nothing to move.

use super::job::controlling_of;
use super::pty;
use super::terminal::Terminal;
use super::termios::WindowSize;
use crate::background;
use crate::errno::{Errno, EAGAIN};
use crate::fs::file::{O_NONBLOCK, O_RDWR};
use crate::fs::{stream, Events, OpenFile};
use crate::io::IoBuffer;
use crate::process::{Process, Task};
use crate::wait::{wait_on, Interruptible, WaitQueue};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::sync::SpinLock;
use linux_abi::fs::O_NOCTTY;

/// A stream that the runtime did not give.
const NO_STREAM: u32 = u32::MAX;

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
    let output = stream::open(stdout)?;
    if stdin == stdout {
        let (input, typed) = (output.clone(), terminal.clone());
        background::spawn("tty-input", Box::new(move || type_from(&input, &typed, true)))?;
    } else if stdin != NO_STREAM {
        let (input, typed) = (stream::open(stdin)?, terminal.clone());
        input.set_flags(O_RDWR | O_NONBLOCK);
        background::spawn("tty-input", Box::new(move || type_from(&input, &typed, false)))?;
    }
    background::spawn("tty-output", Box::new(move || print_to(&output, &terminal)))?;
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

/// Guest to host, until every slave is closed and all is written.
fn print_to(output: &OpenFile, terminal: &Arc<Terminal>) {
    loop {
        let Some(bytes) = terminal.take_output(16384) else {
            let core = terminal.core.lock();
            if core.slave_left || core.master_left {
                break;
            }
            drop(core);
            let ready = || {
                let core = terminal.core.lock();
                (core.output_count() > 0 || core.slave_left || core.master_left).then_some(())
            };
            let _ = terminal.master_queue.wait(Interruptible::No, None, ready);
            continue;
        };
        let mut buffer = IoBuffer::take(&bytes);
        while buffer.remaining() > 0 {
            match output.ops.write(output, &mut buffer) {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
    }
    pty::remove(terminal.index);
    terminal.master_closed();
}
