//! The command line as far as this program understands it (`runtime/cli/flags.py` is the whole of it).

use std::path::PathBuf;

const SIGTERM: i32 = 15;
/// The names that callers use; the others are Python's.
const SIGNALS: [(&str, i32); 9] =
    [("HUP", 1), ("INT", 2), ("QUIT", 3), ("KILL", 9), ("USR1", 10), ("USR2", 12), ("TERM", SIGTERM), ("CONT", 18), ("STOP", 19)];

pub struct Options<'a> {
    /// Where the state of containers is kept.
    pub root: PathBuf,
    pub log: Log<'a>,
    pub command: Command<'a>,
}

/// Where errors are told beside standard error.
#[derive(Default)]
pub struct Log<'a> {
    pub path: Option<&'a str>,
    pub is_json: bool,
}

impl Log<'_> {
    /// None: cannot be opened, or is to have text, which is Python's to format.
    pub fn open(&self) -> Option<()> {
        if let Some(path) = self.path.filter(|_| self.is_json) {
            vmm::log::open(std::fs::File::options().append(true).create(true).open(path).ok()?.into());
        }
        (self.path.is_none() || self.is_json).then_some(())
    }
}

pub enum Command<'a> {
    Start {
        id: &'a str,
    },
    Kill {
        id: &'a str,
        signal: i32,
    },
    /// Without a terminal.
    Exec(Exec<'a>),
    State {
        id: &'a str,
    },
    /// `create` or `run`.
    Create,
}

#[derive(Default)]
pub struct Exec<'a> {
    pub id: &'a str,
    pub args: Vec<&'a str>,
    pub env: Vec<&'a str>,
    pub cwd: Option<&'a str>,
    /// A file with an OCI process object, in place of `args`.
    pub process: Option<&'a str>,
    pub detach: bool,
    pub pid_file: Option<&'a str>,
}

/// None: not for us.
pub fn parse<'a>(words: &[&'a str]) -> Option<Options<'a>> {
    let (mut root, mut log) = (None, Log::default());
    let mut rest = words.iter().copied();
    let command = loop {
        let word = rest.next()?;
        let Some(flag) = word.strip_prefix("--") else { break word };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        match name {
            "root" => root = Some(value.or_else(|| rest.next())?),
            "log" => log.path = Some(value.or_else(|| rest.next())?).filter(|path| !path.is_empty()),
            "log-format" => match value.or_else(|| rest.next())? {
                "json" => log.is_json = true,
                "text" => log.is_json = false,
                _ => return None,
            },
            "systemd-cgroup" if value.is_none() => {}
            _ => return None,
        }
    };
    let arguments: Vec<&str> = rest.collect();
    let command = match (command, arguments.as_slice()) {
        ("start", [id]) => Command::Start { id: checked(id)? },
        ("kill", [id]) => Command::Kill { id: checked(id)?, signal: SIGTERM },
        ("kill", [id, signal]) => Command::Kill { id: checked(id)?, signal: signal_number(signal)? },
        ("state", [id]) => Command::State { id: checked(id)? },
        ("exec", words) => exec(words)?,
        ("create" | "run", [_, ..]) => Command::Create,
        _ => return None,
    };
    let root = root.filter(|root| !root.is_empty()).map_or_else(default_root, |root| Some(PathBuf::from(root)))?;
    Some(Options { root, log, command })
}

/// `exec` with the flags that engines and people use, but for terminals and other users.
fn exec<'a>(words: &[&'a str]) -> Option<Command<'a>> {
    let mut exec = Exec::default();
    let mut rest = words.iter().copied();
    let id = loop {
        let word = rest.next()?;
        let Some(flag) = word.strip_prefix('-') else { break word };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if matches!(name, "d" | "-detach") && value.is_none() {
            exec.detach = true;
            continue;
        }
        let target = match name {
            "e" | "-env" => {
                exec.env.push(value.or_else(|| rest.next())?);
                continue;
            }
            "-cwd" => &mut exec.cwd,
            "p" | "-process" => &mut exec.process,
            "-pid-file" => &mut exec.pid_file,
            _ => return None,
        };
        *target = Some(value.or_else(|| rest.next())?).filter(|path| !path.is_empty());
    };
    exec.id = checked(id)?;
    exec.args = rest.collect();
    (exec.args.is_empty() == exec.process.is_some()).then_some(Command::Exec(exec))
}

/// A container's name, which is also that of a folder.
fn checked(id: &str) -> Option<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.".contains(&byte);
    // A hyphen may not come first: that is a flag.
    let well_formed = id.bytes().enumerate().all(|(index, byte)| allowed(byte) || byte == b'-' && index > 0);
    (well_formed && !matches!(id, "" | "." | "..") && id.len() <= 255).then_some(id)
}

fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=31).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// Of a user who is root; others have more places for it.
fn default_root() -> Option<PathBuf> {
    let usual = rustix::process::geteuid().is_root() && rustix::fs::access("/run", rustix::fs::Access::WRITE_OK).is_ok();
    usual.then(|| PathBuf::from("/run/litebox"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(words: &[&str]) -> Option<i32> {
        match parse(words)?.command {
            Command::Kill { id: "c", signal } => Some(signal),
            _ => None,
        }
    }

    #[test]
    fn signals_by_name_and_number() {
        assert_eq!(kill(&["--root", "/r", "kill", "c"]), Some(15));
        assert_eq!(kill(&["--root=/r", "kill", "c", "sigkill"]), Some(9));
        assert_eq!(kill(&["--root=/r", "kill", "c", "2"]), Some(2));
        assert_eq!(kill(&["--root=/r", "kill", "c", "0"]), None);
        assert_eq!(kill(&["--root=/r", "kill", "c", "RTMIN+1"]), None);
        assert_eq!(kill(&["--root=/r", "kill", "--all", "c"]), None);
    }

    #[test]
    fn exec_takes_all_words_behind_the_id() {
        let options = parse(&["--root=/r", "exec", "-e", "A=1", "--env=B=2", "--cwd", "/x", "a", "sh", "-t", "--"]).unwrap();
        let Command::Exec(Exec { id: "a", args, env, cwd: Some("/x"), .. }) = options.command else { panic!() };
        assert_eq!((args, env), (vec!["sh", "-t", "--"], vec!["A=1", "B=2"]));
    }

    #[test]
    fn exec_as_engines_call_it() {
        let options = parse(&["--root=/r", "exec", "--process", "/p", "--detach", "--pid-file=/f", "a"]).unwrap();
        let Command::Exec(Exec { id: "a", process: Some("/p"), detach: true, pid_file: Some("/f"), .. }) = options.command else {
            panic!()
        };
    }

    #[test]
    fn what_is_not_understood_is_left_to_python() {
        for words in [
            &["start"][..],
            &["start", "-h"],
            &["start", ".."],
            &["start", "a/b"],
            &["start", "a", "b"],
            &["--debug", "start", "a"],
            &["--root"],
            &["run"],
            &["exec", "a"],
            &["exec", "-t", "a", "sh"],
            &["exec", "-p", "file", "a", "sh"],
            &["exec", "--detach=true", "a", "sh"],
            &["exec", "-e"],
            &["state", "-h"],
        ] {
            assert!(parse(words).is_none(), "{words:?}");
        }
        let options = parse(&["--root", "/r", "--log", "/l", "--log-format", "json", "start", "a-1"]).unwrap();
        assert!(matches!(options.command, Command::Start { id: "a-1" }) && options.log.path == Some("/l") && options.log.is_json);
    }
}
