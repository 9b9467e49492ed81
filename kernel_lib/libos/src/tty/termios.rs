//! Terminal settings (termios(3), ioctl_tty(2)): flags, control characters and the structures that programs pass.

use zerocopy::{FromBytes, Immutable, IntoBytes};

// c_iflag
pub const BRKINT: u32 = 0o2;
pub const PARMRK: u32 = 0o10;
pub const ISTRIP: u32 = 0o40;
pub const INLCR: u32 = 0o100;
pub const IGNCR: u32 = 0o200;
pub const ICRNL: u32 = 0o400;
pub const IUCLC: u32 = 0o1000;
pub const IXON: u32 = 0o2000;
pub const IXANY: u32 = 0o4000;
pub const IUTF8: u32 = 0o40000;
// c_oflag
pub const OPOST: u32 = 0o1;
pub const OLCUC: u32 = 0o2;
pub const ONLCR: u32 = 0o4;
pub const OCRNL: u32 = 0o10;
pub const ONOCR: u32 = 0o20;
pub const ONLRET: u32 = 0o40;
pub const TABDLY: u32 = 0o14000;
// c_lflag
pub const ISIG: u32 = 0o1;
pub const ICANON: u32 = 0o2;
pub const ECHO: u32 = 0o10;
pub const ECHOE: u32 = 0o20;
pub const ECHOK: u32 = 0o40;
pub const ECHONL: u32 = 0o100;
pub const NOFLSH: u32 = 0o200;
pub const TOSTOP: u32 = 0o400;
pub const ECHOCTL: u32 = 0o1000;
pub const ECHOPRT: u32 = 0o2000;
pub const ECHOKE: u32 = 0o4000;
pub const IEXTEN: u32 = 0o100_000;
pub const EXTPROC: u32 = 0o200_000;
// c_cc
pub const VINTR: usize = 0;
pub const VQUIT: usize = 1;
pub const VERASE: usize = 2;
pub const VKILL: usize = 3;
pub const VEOF: usize = 4;
pub const VTIME: usize = 5;
pub const VMIN: usize = 6;
pub const VSTART: usize = 8;
pub const VSTOP: usize = 9;
pub const VSUSP: usize = 10;
pub const VEOL: usize = 11;
pub const VREPRINT: usize = 12;
pub const VWERASE: usize = 14;
pub const VLNEXT: usize = 15;
pub const VEOL2: usize = 16;

/// A control character that is switched off.
pub const DISABLED: u8 = 0;

/// The kernel's struct termios2; struct termios is its first [`TERMIOS_BYTES`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Termios {
    pub iflag: u32,
    pub oflag: u32,
    pub cflag: u32,
    pub lflag: u32,
    pub line: u8,
    pub cc: [u8; 19],
    pub ispeed: u32,
    pub ospeed: u32,
}

pub const TERMIOS_BYTES: usize = 36;

/// The old System V structure (TCGETA).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Termio {
    pub iflag: u16,
    pub oflag: u16,
    pub cflag: u16,
    pub lflag: u16,
    pub line: u8,
    pub cc: [u8; 8],
    pub pad: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
    pub x_pixels: u16,
    pub y_pixels: u16,
}

impl Default for Termios {
    /// As Linux sets up a new pty: 38400 baud, 8 bits, canonical with echo.
    fn default() -> Self {
        Self {
            iflag: ICRNL | IXON,
            oflag: OPOST | ONLCR,
            cflag: 0o277,
            lflag: ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
            line: 0,
            cc: [3, 0o34, 0o177, 0o25, 4, 0, 1, 0, 0o21, 0o23, 0o32, 0, 0o22, 0o17, 0o27, 0o26, 0, 0, 0],
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

impl Termios {
    pub const fn input(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }
    pub const fn output(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }
    pub const fn local(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }
    /// Whether `byte` is the control character `which`, which may be switched off.
    pub const fn is(&self, which: usize, byte: u8) -> bool {
        self.cc[which] == byte && byte != DISABLED
    }

    /// Merges what TCSETA sets.
    pub fn merge(&mut self, old: &Termio) {
        let keep = 0xffff_0000;
        self.iflag = self.iflag & keep | u32::from(old.iflag);
        self.oflag = self.oflag & keep | u32::from(old.oflag);
        self.cflag = self.cflag & keep | u32::from(old.cflag);
        self.lflag = self.lflag & keep | u32::from(old.lflag);
        self.line = old.line;
        self.cc[..8].copy_from_slice(&old.cc);
    }

    pub fn as_termio(&self) -> Termio {
        let mut cc = [0; 8];
        cc.copy_from_slice(&self.cc[..8]);
        Termio {
            iflag: self.iflag as u16,
            oflag: self.oflag as u16,
            cflag: self.cflag as u16,
            lflag: self.lflag as u16,
            line: self.line,
            cc,
            pad: 0,
        }
    }
}
