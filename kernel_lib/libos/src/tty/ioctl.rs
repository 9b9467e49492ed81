//! ioctl_tty(2). On the master most requests act on the slave, as in Linux.

use super::pty::{self, SlaveEnd};
use super::terminal::Terminal;
use super::termios::{Termio, Termios, WindowSize, TERMIOS_BYTES, VSTART, VSTOP};
use crate::errno::{Errno, EFAULT, EINVAL, EIO, ENOTTY, EPERM};
use crate::fs::OpenFile;
use crate::ipc::links::{capable, CAP_SYS_ADMIN};
use crate::SysResult;
use alloc::sync::Arc;
use hal::user;
use linux_abi::signal::SIGWINCH;
use zerocopy::{FromBytes, IntoBytes};

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCGETA: u32 = 0x5405;
const TCSETA: u32 = 0x5406;
const TCSETAW: u32 = 0x5407;
const TCSETAF: u32 = 0x5408;
const TCSBRK: u32 = 0x5409;
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCSTI: u32 = 0x5412;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TIOCPKT: u32 = 0x5420;
const TIOCNOTTY: u32 = 0x5422;
const TIOCSETD: u32 = 0x5423;
const TIOCGETD: u32 = 0x5424;
const TCSBRKP: u32 = 0x5425;
const TIOCSBRK: u32 = 0x5427;
const TIOCCBRK: u32 = 0x5428;
const TIOCGSID: u32 = 0x5429;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGDEV: u32 = 0x8004_5432;
const TIOCSIG: u32 = 0x4004_5436;
const TIOCVHANGUP: u32 = 0x5437;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCGEXCL: u32 = 0x8004_5440;
const TIOCGPTPEER: u32 = 0x5441;

const N_TTY: i32 = 0;

/// Which side of the pty the file is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Master,
    Slave,
}

fn get_int(address: u64) -> Result<i32, Errno> {
    user::read(address)
}

fn put_int(address: u64, value: i32) -> SysResult {
    user::write(address, &value).map(|()| 0)
}

/// What every file of the terminal answers. ENOTTY: not one of these.
pub fn ioctl(terminal: &Arc<Terminal>, side: Side, file: &OpenFile, request: u32, argument: u64) -> SysResult {
    let master = side == Side::Master;
    match request {
        TCGETS | TCGETS2 | TCGETA | TCSETS | TCSETSW | TCSETSF | TCSETS2 | TCSETSW2 | TCSETSF2 | TCSETA | TCSETAW | TCSETAF => {
            settings(terminal, request, argument)
        }
        TIOCGWINSZ => {
            let window = terminal.core.lock().window;
            user::write(argument, &window).map(|()| 0)
        }
        TIOCSWINSZ => {
            let window: WindowSize = user::read(argument)?;
            terminal.resize(window);
            Ok(0)
        }
        TIOCSCTTY => {
            if master {
                return Err(ENOTTY);
            }
            terminal.take_control(argument == 1, capable(CAP_SYS_ADMIN)).map(|()| 0)
        }
        TIOCNOTTY => terminal.give_up_control().map(|()| 0),
        TIOCGPGRP => put_int(argument, terminal.foreground_group(master)? as i32),
        TIOCSPGRP => terminal.set_foreground_group(master, get_int(argument)?).map(|()| 0),
        TIOCGSID => put_int(argument, terminal.session_number(master)? as i32),
        TCSBRK | TCSBRKP | TIOCSBRK | TIOCCBRK => {
            terminal.check_foreground_change()?;
            Ok(0)
        }
        TCXONC => flow(terminal, argument),
        TCFLSH => flush(terminal, side, argument),
        FIONREAD => {
            let core = terminal.core.lock();
            let count = if master { core.output_count() } else { core.input_count() };
            drop(core);
            put_int(argument, count as i32)
        }
        // Nothing is held back on the way to the other side.
        TIOCOUTQ => put_int(argument, 0),
        // Typing into another process's terminal is switched off, as by dev.tty.legacy_tiocsti=0.
        TIOCSTI => Err(EIO),
        TIOCEXCL | TIOCNXCL => {
            terminal.core.lock().exclusive = request == TIOCEXCL;
            Ok(0)
        }
        TIOCGEXCL => {
            let on = terminal.core.lock().exclusive;
            put_int(argument, i32::from(on))
        }
        TIOCGETD => put_int(argument, N_TTY),
        TIOCSETD => match get_int(argument)? {
            N_TTY => Ok(0),
            _ => Err(EINVAL),
        },
        TIOCVHANGUP => {
            if !capable(CAP_SYS_ADMIN) {
                return Err(EPERM);
            }
            terminal.hang_up();
            Ok(0)
        }
        TIOCGDEV => {
            let (major, minor) = if master { (5, 2) } else { (super::job::PTS_MAJOR, terminal.index) };
            put_int(argument, linux_abi::fs::makedev(major, minor) as i32)
        }
        _ if master => master_only(terminal, file, request, argument),
        _ => Err(ENOTTY),
    }
}

fn master_only(terminal: &Arc<Terminal>, _file: &OpenFile, request: u32, argument: u64) -> SysResult {
    match request {
        TIOCGPTN => put_int(argument, terminal.index as i32),
        TIOCSPTLCK => {
            let locked = get_int(argument)? != 0;
            terminal.core.lock().locked = locked;
            Ok(0)
        }
        TIOCGPTLCK => {
            let locked = terminal.core.lock().locked;
            put_int(argument, i32::from(locked))
        }
        TIOCPKT => {
            let on = get_int(argument)? != 0;
            terminal.change(|core| core.packet = on);
            Ok(0)
        }
        TIOCGPKT => {
            let on = terminal.core.lock().packet;
            put_int(argument, i32::from(on))
        }
        TIOCSIG => {
            let signal = argument as i32;
            if !matches!(signal, 2 | 3 | 20) {
                return Err(EINVAL);
            }
            terminal.signal_foreground(signal);
            Ok(0)
        }
        TIOCGPTPEER => pty::open_peer(terminal, argument as u32),
        _ => Err(ENOTTY),
    }
}

fn settings(terminal: &Arc<Terminal>, request: u32, argument: u64) -> SysResult {
    let present = terminal.core.lock().settings;
    let mut wanted = present;
    match request {
        TCGETS => return user::write_bytes(argument, &present.as_bytes()[..TERMIOS_BYTES]).map(|()| 0),
        TCGETS2 => return user::write(argument, &present).map(|()| 0),
        TCGETA => return user::write(argument, &present.as_termio()).map(|()| 0),
        _ => {}
    }
    terminal.check_foreground_change()?;
    match request {
        TCSETS2 | TCSETSW2 | TCSETSF2 => wanted = user::read(argument)?,
        TCSETA | TCSETAW | TCSETAF => wanted.merge(&user::read::<Termio>(argument)?),
        _ => {
            let mut bytes = [0; core::mem::size_of::<Termios>()];
            bytes.copy_from_slice(present.as_bytes());
            user::read_bytes(argument, &mut bytes[..TERMIOS_BYTES])?;
            wanted = Termios::read_from_bytes(&bytes).map_err(|_| EFAULT)?;
        }
    }
    // A pty has 8 bits, no parity, and always receives.
    const CSIZE: u32 = 0o60;
    const CS8: u32 = 0o60;
    const PARENB: u32 = 0o400;
    const CREAD: u32 = 0o200;
    wanted.cflag = wanted.cflag & !(CSIZE | PARENB) | CS8 | CREAD;
    let flush = matches!(request, TCSETSF | TCSETSF2 | TCSETAF);
    terminal.change(|core| {
        if flush {
            core.flush_input();
        }
        core.set_settings(wanted);
    });
    Ok(0)
}

/// tcflow(3).
fn flow(terminal: &Arc<Terminal>, action: u64) -> SysResult {
    const OUTPUT_OFF: u64 = 0;
    const OUTPUT_ON: u64 = 1;
    const INPUT_OFF: u64 = 2;
    const INPUT_ON: u64 = 3;
    terminal.check_foreground_change()?;
    match action {
        OUTPUT_OFF | OUTPUT_ON => terminal.change(|core| core.set_flow(action == OUTPUT_OFF)),
        INPUT_OFF | INPUT_ON => {
            let which = if action == INPUT_OFF { VSTOP } else { VSTART };
            terminal.change(|core| {
                let byte = core.settings.cc[which];
                core.print_control(byte);
            });
        }
        _ => return Err(EINVAL),
    }
    Ok(0)
}

/// tcflush(3). On the master, its own input is what the slave printed.
fn flush(terminal: &Arc<Terminal>, side: Side, queue: u64) -> SysResult {
    const INPUT: u64 = 0;
    const OUTPUT: u64 = 1;
    const BOTH: u64 = 2;
    if side == Side::Slave {
        terminal.check_foreground_change()?;
    }
    if queue > BOTH {
        return Err(EINVAL);
    }
    let (input, output) = (queue == INPUT || queue == BOTH, queue == OUTPUT || queue == BOTH);
    terminal.change(|core| {
        let (typed, printed) = if side == Side::Slave { (input, output) } else { (output, input) };
        if typed {
            core.flush_input();
        }
        if printed {
            core.flush_output();
        }
    });
    Ok(0)
}

impl Terminal {
    /// TIOCSWINSZ: a change is told to the foreground group.
    pub fn resize(&self, window: WindowSize) {
        let changed = core::mem::replace(&mut self.core.lock().window, window) != window;
        if changed {
            self.signal_foreground(SIGWINCH);
        }
    }
}

/// For /dev/tty, whose requests act on the terminal behind it.
pub fn of_slave(slave: &SlaveEnd, file: &OpenFile, request: u32, argument: u64) -> SysResult {
    if slave.is_dead() {
        return Err(if request == TIOCSPGRP { ENOTTY } else { EIO });
    }
    ioctl(&slave.terminal, Side::Slave, file, request, argument)
}
