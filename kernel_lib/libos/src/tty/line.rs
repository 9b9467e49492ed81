//! The line discipline N_TTY: what becomes of each byte that is typed and of each byte that is printed. Pure: no locks, no waiting.
//!
//! Invariants:
//! - `cells` holds what was typed and not read yet; cells below `canon` (counted from the front) belong to complete lines or, without
//!   ICANON, are readable as they are; the rest is the line that is being edited;
//! - `ends` counts the cells marked [`END`].

use super::termios::{
    Termios, ECHO, ECHOCTL, ECHOE, ECHOK, ECHOKE, ECHONL, ECHOPRT, EXTPROC, ICANON, ICRNL, IEXTEN, IGNCR, INLCR, ISIG, ISTRIP, IUCLC,
    IUTF8, IXANY, IXON, NOFLSH, OCRNL, OLCUC, ONLCR, ONLRET, ONOCR, OPOST, PARMRK, TABDLY, VEOF, VEOL, VEOL2, VERASE, VINTR, VKILL, VLNEXT,
    VQUIT, VREPRINT, VSTART, VSTOP, VSUSP, VWERASE,
};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// N_TTY_BUF_SIZE - 1: a longer line loses its further bytes.
pub const MAX_INPUT: usize = 4095;
/// The cell ends a line.
const END: u16 = 0x100;
/// The cell is an end of file: it ends a line and is not read itself.
const EOF: u16 = 0x200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TerminalSignal {
    Interrupt,
    Quit,
    Suspend,
}

/// What typing a byte asks for besides echo.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Effects {
    pub signal: Option<TerminalSignal>,
    /// Input and output that wait are thrown away (a signal without NOFLSH).
    pub flush: bool,
    /// Output stops (true) or goes on (false): IXON.
    pub flow: Option<bool>,
}

#[derive(Default)]
pub struct Line {
    cells: VecDeque<u16>,
    canon: usize,
    ends: usize,
    /// Output column, and the one where the line being edited began.
    column: usize,
    canon_column: usize,
    /// ECHOPRT: inside of a `\…/` pair.
    erasing: bool,
    /// The next byte is literal.
    literal: bool,
}

const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn is_continuation(byte: u8, settings: &Termios) -> bool {
    settings.input(IUTF8) && byte & 0xc0 == 0x80
}

impl Line {
    /// Bytes that can be read now: whole lines with ICANON, else anything.
    pub fn readable(&self, settings: &Termios) -> bool {
        if settings.local(ICANON) {
            self.ends > 0
        } else {
            !self.cells.is_empty()
        }
    }

    /// FIONREAD.
    pub fn count(&self, settings: &Termios) -> usize {
        if !settings.local(ICANON) {
            return self.cells.len();
        }
        self.cells.iter().take(self.canon).filter(|&&cell| cell & EOF == 0).count()
    }

    /// Whether a byte typed now could be kept, or would be dropped as the tail of a line that is too long anyway.
    pub fn takes_input(&self, settings: &Termios) -> bool {
        self.cells.len() < MAX_INPUT || (settings.local(ICANON) && self.ends == 0)
    }

    pub fn flush_input(&mut self) {
        self.cells.clear();
        (self.canon, self.ends) = (0, 0);
        self.erasing = false;
        self.literal = false;
    }

    /// ICANON was switched: what is there becomes readable, or a line of its own.
    pub fn mode_changed(&mut self, settings: &Termios) {
        for cell in &mut self.cells {
            *cell &= !END;
        }
        self.ends = 0;
        self.canon = 0;
        if settings.local(ICANON) {
            if let Some(last) = self.cells.back_mut() {
                *last |= END;
                self.ends = 1;
            }
            self.canon = self.cells.len();
        }
        self.erasing = false;
        self.literal = false;
    }

    /// Takes up to `most` bytes for a reader, with ICANON up to the end of one line. None: an end of file was met (and taken).
    pub fn read(&mut self, most: usize, settings: &Termios) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(most.min(self.cells.len()));
        let canonical = settings.local(ICANON);
        while bytes.len() < most {
            if canonical && self.canon == 0 {
                break;
            }
            let Some(cell) = self.cells.pop_front() else { break };
            self.canon = self.canon.saturating_sub(1);
            if cell & END != 0 {
                self.ends -= 1;
            }
            if canonical && cell & EOF != 0 {
                return if bytes.is_empty() { None } else { Some(bytes) };
            }
            bytes.push(cell as u8);
            if canonical && cell & END != 0 {
                break;
            }
        }
        Some(bytes)
    }

    /// A byte is typed. Echo goes to `echo`.
    pub fn typed(&mut self, mut byte: u8, settings: &Termios, echo: &mut Vec<u8>) -> Effects {
        let mut effects = Effects::default();
        if settings.input(ISTRIP) {
            byte &= 0x7f;
        }
        if settings.input(IUCLC) && settings.local(IEXTEN) {
            byte = byte.to_ascii_lowercase();
        }
        if settings.local(EXTPROC) {
            self.push(u16::from(byte));
            return effects;
        }
        if core::mem::take(&mut self.literal) {
            self.ordinary(byte, settings, echo);
            return effects;
        }
        if settings.input(IXON) {
            if settings.is(VSTART, byte) {
                effects.flow = Some(false);
                return effects;
            }
            if settings.is(VSTOP, byte) {
                effects.flow = Some(true);
                return effects;
            }
        }
        if settings.local(ISIG) {
            let signals = [(VINTR, TerminalSignal::Interrupt), (VQUIT, TerminalSignal::Quit), (VSUSP, TerminalSignal::Suspend)];
            if let Some(&(_, signal)) = signals.iter().find(|(which, _)| settings.is(*which, byte)) {
                effects.signal = Some(signal);
                effects.flush = !settings.local(NOFLSH);
                if effects.flush {
                    self.flush_input();
                    echo.clear();
                }
                if settings.input(IXON) {
                    effects.flow = Some(false);
                }
                if settings.local(ECHO) {
                    self.echo(byte, settings, echo);
                }
                return effects;
            }
        }
        if settings.input(IXON) && settings.input(IXANY) {
            effects.flow = Some(false);
        }
        match byte {
            b'\r' if settings.input(IGNCR) => return effects,
            b'\r' if settings.input(ICRNL) => byte = b'\n',
            b'\n' if settings.input(INLCR) => byte = b'\r',
            _ => {}
        }
        if settings.local(ICANON) && self.edits(byte, settings, echo) {
            return effects;
        }
        self.ordinary(byte, settings, echo);
        effects
    }

    /// Canonical editing: whether the byte was dealt with.
    fn edits(&mut self, byte: u8, settings: &Termios, echo: &mut Vec<u8>) -> bool {
        let extended = settings.local(IEXTEN);
        if settings.is(VERASE, byte) || settings.is(VKILL, byte) || (extended && settings.is(VWERASE, byte)) {
            self.erase(byte, settings, echo);
            return true;
        }
        if extended && settings.is(VLNEXT, byte) {
            self.literal = true;
            if settings.local(ECHO) {
                self.finish_erasing(settings, echo);
                if settings.local(ECHOCTL) {
                    self.print_raw(b'^', settings, echo);
                    self.print_raw(8, settings, echo);
                }
            }
            return true;
        }
        if extended && settings.local(ECHO) && settings.is(VREPRINT, byte) {
            self.finish_erasing(settings, echo);
            self.echo(byte, settings, echo);
            self.print_raw(b'\n', settings, echo);
            for index in self.canon..self.cells.len() {
                let byte = self.cells[index] as u8;
                self.echo(byte, settings, echo);
            }
            return true;
        }
        if byte == b'\n' {
            if settings.local(ECHO) || settings.local(ECHONL) {
                self.print_raw(b'\n', settings, echo);
            }
            self.end_line(u16::from(byte));
            return true;
        }
        if settings.is(VEOF, byte) {
            self.end_line(EOF);
            return true;
        }
        if settings.is(VEOL, byte) || (extended && settings.is(VEOL2, byte)) {
            if settings.local(ECHO) {
                self.note_column();
                self.echo(byte, settings, echo);
            }
            if settings.input(PARMRK) && byte == 0xff {
                self.push(u16::from(byte));
            }
            self.end_line(u16::from(byte));
            return true;
        }
        false
    }

    fn ordinary(&mut self, byte: u8, settings: &Termios, echo: &mut Vec<u8>) {
        if settings.local(ECHO) {
            self.finish_erasing(settings, echo);
            if byte == b'\n' {
                self.print_raw(b'\n', settings, echo);
            } else {
                self.note_column();
                self.echo(byte, settings, echo);
            }
        }
        if settings.input(PARMRK) && byte == 0xff {
            self.push(u16::from(byte));
        }
        self.push(u16::from(byte));
    }

    fn push(&mut self, cell: u16) {
        // One place is left for the end of the line.
        if self.cells.len() < MAX_INPUT {
            self.cells.push_back(cell);
        }
    }

    fn end_line(&mut self, cell: u16) {
        if self.cells.len() > MAX_INPUT {
            return;
        }
        self.cells.push_back(cell | END);
        self.ends += 1;
        self.canon = self.cells.len();
    }

    /// The line begins to be edited here: tabs are erased by what they took on the screen.
    fn note_column(&mut self) {
        if self.canon == self.cells.len() {
            self.canon_column = self.column;
        }
    }

    fn finish_erasing(&mut self, settings: &Termios, echo: &mut Vec<u8>) {
        if core::mem::take(&mut self.erasing) {
            self.print_raw(b'/', settings, echo);
        }
    }

    /// Echo of a typed byte: control characters as ^X with ECHOCTL.
    fn echo(&mut self, byte: u8, settings: &Termios, echo: &mut Vec<u8>) {
        if settings.local(ECHOCTL) && is_control(byte) && byte != b'\t' {
            echo.extend_from_slice(&[b'^', byte ^ 0o100]);
            self.column += 2;
        } else {
            self.print_raw(byte, settings, echo);
        }
    }

    fn print_raw(&mut self, byte: u8, settings: &Termios, echo: &mut Vec<u8>) {
        if settings.output(OPOST) {
            self.print(byte, settings, echo);
        } else {
            echo.push(byte);
        }
    }

    fn erase(&mut self, byte: u8, settings: &Termios, echo: &mut Vec<u8>) {
        if self.cells.len() == self.canon {
            return;
        }
        let echoes = settings.local(ECHO);
        let (word, kill) =
            (settings.is(VWERASE, byte) && !settings.is(VERASE, byte), settings.is(VKILL, byte) && !settings.is(VERASE, byte));
        if kill {
            if !echoes {
                self.cells.truncate(self.canon);
                return;
            }
            if !(settings.local(ECHOK) && settings.local(ECHOKE) && settings.local(ECHOE)) {
                self.cells.truncate(self.canon);
                self.finish_erasing(settings, echo);
                self.echo(byte, settings, echo);
                if settings.local(ECHOK) {
                    self.print_raw(b'\n', settings, echo);
                }
                return;
            }
        }
        let mut seen_word = false;
        while self.cells.len() > self.canon {
            // A whole character: its continuation bytes (IUTF8) and its first.
            let mut head = self.cells.len();
            let mut first = 0;
            while head > self.canon {
                head -= 1;
                first = self.cells[head] as u8;
                if !is_continuation(first, settings) {
                    break;
                }
            }
            if is_continuation(first, settings) {
                break;
            }
            if word {
                if first.is_ascii_alphanumeric() || first == b'_' {
                    seen_word = true;
                } else if seen_word {
                    break;
                }
            }
            let erased: Vec<u8> = self.cells.drain(head..).map(|cell| cell as u8).collect();
            if echoes {
                self.echo_erased(&erased, byte, word || kill, settings, echo);
            }
            if !word && !kill {
                break;
            }
        }
        if self.cells.len() == self.canon && echoes {
            self.finish_erasing(settings, echo);
        }
    }

    fn echo_erased(&mut self, erased: &[u8], typed: u8, many: bool, settings: &Termios, echo: &mut Vec<u8>) {
        let Some(&first) = erased.first() else { return };
        if settings.local(ECHOPRT) {
            if !core::mem::replace(&mut self.erasing, true) {
                self.print_raw(b'\\', settings, echo);
            }
            self.echo(first, settings, echo);
            echo.extend_from_slice(&erased[1..]);
        } else if !many && !settings.local(ECHOE) {
            self.echo(typed, settings, echo);
        } else if first == b'\t' {
            self.erase_tab(settings, echo);
        } else {
            let wide = is_control(first) && settings.local(ECHOCTL);
            if wide {
                echo.extend_from_slice(b"\x08 \x08");
                self.column = self.column.saturating_sub(1);
            }
            if !is_control(first) || wide {
                echo.extend_from_slice(b"\x08 \x08");
                self.column = self.column.saturating_sub(1);
            }
        }
    }

    /// Goes back by as many columns as the tab had taken.
    fn erase_tab(&mut self, settings: &Termios, echo: &mut Vec<u8>) {
        let mut columns = 0;
        let mut after_tab = false;
        for &cell in self.cells.iter().skip(self.canon).rev() {
            let byte = cell as u8;
            if byte == b'\t' {
                after_tab = true;
                break;
            }
            if is_control(byte) {
                columns += if settings.local(ECHOCTL) { 2 } else { 0 };
            } else if !is_continuation(byte, settings) {
                columns += 1;
            }
        }
        if !after_tab {
            columns += self.canon_column;
        }
        for _ in 0..8 - (columns & 7) {
            echo.push(8);
            self.column = self.column.saturating_sub(1);
        }
    }

    /// Output processing (OPOST) of one byte.
    pub fn print(&mut self, byte: u8, settings: &Termios, out: &mut Vec<u8>) {
        match byte {
            b'\n' => {
                if settings.output(ONLRET) {
                    self.column = 0;
                }
                if settings.output(ONLCR) {
                    self.column = 0;
                    out.push(b'\r');
                }
                out.push(b'\n');
            }
            b'\r' => {
                if settings.output(ONOCR) && self.column == 0 {
                    return;
                }
                if settings.output(OCRNL) {
                    if settings.output(ONLRET) {
                        self.column = 0;
                    }
                    out.push(b'\n');
                } else {
                    self.column = 0;
                    out.push(b'\r');
                }
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                self.column += spaces;
                if settings.oflag & TABDLY == TABDLY {
                    out.resize(out.len() + spaces, b' ');
                } else {
                    out.push(b'\t');
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                out.push(8);
            }
            _ => {
                let byte = if settings.output(OLCUC) { byte.to_ascii_uppercase() } else { byte };
                if !is_control(byte) && !is_continuation(byte, settings) {
                    self.column += 1;
                }
                out.push(byte);
            }
        }
    }

    /// Output processing of a write.
    pub fn print_all(&mut self, bytes: &[u8], settings: &Termios, out: &mut Vec<u8>) {
        if settings.output(OPOST) {
            for &byte in bytes {
                self.print(byte, settings, out);
            }
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_all(line: &mut Line, settings: &Termios, text: &[u8]) -> Vec<u8> {
        let mut echo = Vec::new();
        for &byte in text {
            line.typed(byte, settings, &mut echo);
        }
        echo
    }

    #[test]
    fn canonical_lines_are_read_one_by_one() {
        let (mut line, settings) = (Line::default(), Termios::default());
        assert_eq!(type_all(&mut line, &settings, b"ab\rcd\n"), b"ab\r\ncd\r\n");
        assert_eq!(line.read(100, &settings), Some(b"ab\n".to_vec()));
        assert_eq!(line.read(2, &settings), Some(b"cd".to_vec()));
        assert_eq!(line.read(2, &settings), Some(b"\n".to_vec()));
        assert!(!line.readable(&settings));
    }

    #[test]
    fn erase_word_and_kill() {
        let (mut line, settings) = (Line::default(), Termios::default());
        assert_eq!(type_all(&mut line, &settings, b"ab\x7fc\n"), b"ab\x08 \x08c\r\n");
        assert_eq!(line.read(100, &settings), Some(b"ac\n".to_vec()));
        type_all(&mut line, &settings, b"one two\x17x\n");
        assert_eq!(line.read(100, &settings), Some(b"one x\n".to_vec()));
        type_all(&mut line, &settings, b"gone\x15here\n");
        assert_eq!(line.read(100, &settings), Some(b"here\n".to_vec()));
    }

    #[test]
    fn end_of_file_and_literal() {
        let (mut line, settings) = (Line::default(), Termios::default());
        type_all(&mut line, &settings, b"x\x04");
        assert_eq!(line.read(100, &settings), Some(b"x".to_vec()));
        type_all(&mut line, &settings, b"\x04");
        assert_eq!(line.read(100, &settings), None);
        assert_eq!(type_all(&mut line, &settings, b"\x16\x03\n"), b"^\x08^C\r\n");
        assert_eq!(line.read(100, &settings), Some(b"\x03\n".to_vec()));
    }

    #[test]
    fn signals_flush_and_echo() {
        let (mut line, settings) = (Line::default(), Termios::default());
        let mut echo = Vec::new();
        line.typed(b'x', &settings, &mut echo);
        let effects = line.typed(3, &settings, &mut echo);
        assert_eq!((effects.signal, effects.flush), (Some(TerminalSignal::Interrupt), true));
        assert_eq!(echo, b"^C");
        assert_eq!(line.count(&settings), 0);
    }

    #[test]
    fn long_lines_keep_their_end() {
        let (mut line, settings) = (Line::default(), Termios::default());
        type_all(&mut line, &settings, &[b'a'; 5000]);
        type_all(&mut line, &settings, b"\n");
        assert_eq!(line.read(10000, &settings).map(|bytes| (bytes.len(), bytes.last().copied())), Some((4096, Some(b'\n'))));
    }

    #[test]
    fn output_tabs_and_newlines() {
        let (mut line, mut settings) = (Line::default(), Termios::default());
        settings.oflag |= TABDLY;
        let mut out = Vec::new();
        line.print_all(b"a\tb\n", &settings, &mut out);
        assert_eq!(out, b"a       b\r\n");
    }
}
