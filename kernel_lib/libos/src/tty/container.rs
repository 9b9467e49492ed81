//! The terminal of a process that the runtime starts with `terminal`: a pty of the guest, whose master side is the process's host
//! streams. Two threads of the library OS move the bytes; they sleep whenever there is nothing to move.

use super::pty;
use super::terminal::Terminal;
use super::termios::WindowSize;
use crate::errno::{Errno, EAGAIN};
use crate::fs::file::{O_NONBLOCK, O_RDWR};
use crate::fs::{stream, Events, OpenFile};
use crate::io::IoBuffer;
use crate::ipc::links;
use crate::wait::{wait_on, Interruptible, WaitQueue};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hal::sync::SpinLock;

/// The first one is the container's console.
static CONSOLE: SpinLock<Option<Weak<Terminal>>> = SpinLock::new(None);

pub fn console() -> Option<Arc<Terminal>> {
    CONSOLE.lock().as_ref().and_then(Weak::upgrade)
}

/// What the runtime's Resize messages reach.
#[derive(Clone)]
pub struct ResizeHandle {
    terminal: Weak<Terminal>,
}

impl ResizeHandle {
    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = self.terminal.upgrade() {
            terminal.resize(WindowSize { rows, columns, x_pixels: 0, y_pixels: 0 });
        }
    }

    /// Makes it the controlling terminal of the session whose leader the process is.
    pub fn control(&self, leader: &Arc<crate::process::Process>) {
        if let Some(terminal) = self.terminal.upgrade() {
            terminal.attach(leader);
        }
    }
}

/// Makes the terminal: the slave for descriptors 0, 1 and 2, and what resizes it. `stdin`, `stdout`: handles of host streams.
/// `owner`: of /dev/pts/N.
pub fn container_terminal(
    stdin: u32,
    stdout: u32,
    rows: u16,
    columns: u16,
    owner: (u32, u32),
) -> Result<(Arc<OpenFile>, ResizeHandle), Errno> {
    let terminal = pty::create(owner)?;
    {
        let mut core = terminal.core.lock();
        core.locked = false;
        core.window = WindowSize { rows, columns, x_pixels: 0, y_pixels: 0 };
    }
    CONSOLE.lock().get_or_insert_with(|| Arc::downgrade(&terminal));
    let slave = pty::open_file(&terminal, O_RDWR | linux_abi::fs::O_NOCTTY)?;
    let output = stream::open(stdout)?;
    let same = stdin == stdout;
    let input = if same { output.clone() } else { stream::open(stdin)? };
    if !same {
        input.set_flags(O_RDWR | O_NONBLOCK);
    }
    let resize = ResizeHandle { terminal: Arc::downgrade(&terminal) };
    let typed = terminal.clone();
    links::spawn("tty-input", Box::new(move || type_from(&input, &typed, same)))?;
    links::spawn("tty-output", Box::new(move || print_to(&output, &terminal)))?;
    Ok((slave, resize))
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
