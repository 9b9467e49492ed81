//! Files and directories, through requests as a guest makes them.

use abi::layout::DAX_WINDOW;
use abi::request::{Attributes, Op, Time, AND_DIRECTORY, ATTR_MODE, ATTR_MTIME, ATTR_SIZE, DONE, SLOTS, SUBMITTED, WALK_SIBLINGS};

use super::*;
use crate::server::Servers;

const O_CREAT: i32 = libc::O_CREAT;

#[test]
fn create_write_read_append() {
    let guest = Guest::new("create");
    assert_eq!(guest.open("missing", 0, 0), Err(Errno::NOENT));
    let reply = guest.named(Op::Open, 0, "a", &[(O_CREAT | libc::O_RDWR) as u64, 0o640, own_ids(), BUFFER]).unwrap();
    assert_eq!(reply.out[0], 1, "created");
    let stat: Stat = guest.host.memory.read(BUFFER).unwrap();
    assert_eq!((stat.mode, stat.size), (0o100_640, 0));
    let file = reply.result as u32;
    assert_eq!(guest.write(file, b"hello world", 0, false).unwrap().result, 11);
    assert_eq!(guest.read(file, 100, 6).unwrap(), b"world");
    assert_eq!(guest.read(file, 100, 11).unwrap(), b"");
    let appended = guest.write(file, b"!!", 0, true).unwrap();
    assert_eq!((appended.result, appended.out[0]), (2, 13));
    assert_eq!(guest.read(file, 100, u64::MAX - 1), Err(Errno::INVAL));
    let again = guest.named(Op::Open, 0, "a", &[O_CREAT as u64, 0o640, own_ids(), 0]).unwrap();
    assert_eq!(again.out[0], 0, "existed");
    assert_eq!(guest.open("a", O_CREAT | libc::O_EXCL, 0o600), Err(Errno::EXIST));
    assert_eq!(guest.open("a", libc::O_DIRECTORY, 0), Err(Errno::NOTDIR));
    guest.ask(Op::Close, 0, file, &[]).unwrap();
    assert_eq!(guest.read(file, 1, 0), Err(Errno::BADF));
}

#[test]
fn creation_tells_of_the_directory() {
    let guest = Guest::new("and-directory");
    std::fs::create_dir(guest.directory.join("d")).unwrap();
    let create = |path, flags: i32| {
        guest.named(Op::Open, AND_DIRECTORY, path, &[(libc::O_RDWR | flags) as u64, 0o600, own_ids(), BUFFER]).unwrap();
        let behind = BUFFER + size_of::<Stat>() as u64;
        let directory: Stat = guest.host.memory.read(behind).unwrap();
        guest.host.memory.write(behind, &Stat::default()).unwrap();
        directory
    };
    assert_eq!(create("d/a", O_CREAT), guest.stat("d").unwrap());
    assert_eq!(create("b", O_CREAT).ino, std::os::unix::fs::MetadataExt::ino(&guest.directory.metadata().unwrap()));
    assert_eq!(create("b", O_CREAT), Stat::default(), "only of what was created");
    assert_eq!(create("b", 0), Stat::default());
    let beyond = guest.host.memory.ram_end() - size_of::<Stat>() as u64;
    let args = [(O_CREAT | libc::O_RDWR) as u64, 0o600, own_ids(), beyond];
    assert_eq!(guest.named(Op::Open, AND_DIRECTORY, "c", &args), Err(Errno::FAULT));
}

#[test]
fn a_chain_is_served_in_order() {
    let guest = Guest::new("chain");
    let doorbell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let servers = Servers::new(guest.host.clone(), doorbell, 1_000_000_000, Box::new(|| ()));
    let slot = |number: u32| guest.host.memory.slot(number as usize).unwrap();
    let submit = |number: u32, op: Op, (at, path): (u64, &str), more: &[u64], next: u32| {
        let slot = slot(number);
        slot.op.store(op as u32, Ordering::Relaxed);
        slot.handle.store(TREE, Ordering::Relaxed);
        for (to, value) in slot.args.iter().zip(guest.path(at, path).iter().chain(more)) {
            to.store(*value, Ordering::Relaxed);
        }
        slot.next.store(next, Ordering::Relaxed);
        slot.state.store(SUBMITTED, Ordering::Relaxed);
    };
    let folder = u64::from(libc::S_IFDIR | 0o700);
    submit(5, Op::Make, (PATH, "d"), &[folder, 0, own_ids(), 0], 9 + 1);
    submit(9, Op::Unlink, (PATH_2, "absent"), &[], 2 + 1);
    submit(2, Op::Make, (BUFFER, "d/e"), &[folder, 0, own_ids(), 0], 0);
    submit(7, Op::Unlink, (BUFFER + 100, "d"), &[], 0);
    servers.serve_slot(5, &Worker::outside());
    let outcome = |number: u32| (slot(number).state.load(Ordering::Relaxed), slot(number).result.load(Ordering::Relaxed));
    assert_eq!([5, 9, 2].map(outcome), [(DONE, 0), (DONE, -i64::from(libc::ENOENT)), (DONE, 0)]);
    assert_eq!(outcome(7).0, SUBMITTED, "not of this chain");
    assert!(guest.directory.join("d/e").is_dir());

    // What leads nowhere, or in a circle, ends it.
    for next in [5 + 1, SLOTS as u32 + 1, u32::MAX] {
        submit(5, Op::Stat, (PATH, "d"), &[BUFFER], next);
        servers.serve_slot(5, &Worker::outside());
        assert_eq!(outcome(5), (DONE, 0));
    }
}

#[test]
fn open_reads_and_write_tells_attributes() {
    let guest = Guest::new("combined");
    std::fs::write(guest.directory.join("a"), b"hello world").unwrap();
    let opening = |flags: i32, offset: u64, gpa: u64| {
        guest.host.memory.write(SEGMENTS, &Segment { gpa, bytes: 100 }).unwrap();
        let [path, bytes] = guest.path(PATH, "a");
        let args = [path, bytes, flags as u64, offset, own_ids(), 0];
        guest.serve(Request { op: Op::Open as u32, handle: TREE, segment_count: 1, segments: SEGMENTS, args })
    };
    let reply = opening(libc::O_RDONLY, 6, BUFFER).unwrap();
    assert_eq!((reply.out[1], guest.bytes(BUFFER, 5)), (5, b"world".to_vec()));
    assert_eq!(opening(libc::O_RDONLY, 11, BUFFER).unwrap().out[1], 0);
    // What cannot be read is opened all the same; memory that is not the guest's is refused before.
    assert_eq!(opening(libc::O_WRONLY, 0, BUFFER).unwrap().out[1], 0);
    assert_eq!(opening(libc::O_RDONLY, u64::MAX, BUFFER).unwrap().out[1], 0);
    assert_eq!(opening(O_CREAT | libc::O_RDONLY, 0, BUFFER).unwrap().out[1], 0);
    let handles = guest.host.handles.count();
    assert_eq!(opening(libc::O_RDONLY, 0, DAX_WINDOW), Err(Errno::FAULT));
    assert_eq!(guest.host.handles.count(), handles);

    let file = guest.open("a", libc::O_RDWR, 0).unwrap();
    guest.host.memory.write_bytes(BUFFER, b"!!").unwrap();
    guest.host.memory.write(SEGMENTS, &Segment { gpa: BUFFER, bytes: 2 }).unwrap();
    let args = [11, 0, BUFFER + 64, 0, 0, 0];
    let reply = guest.serve(Request { op: Op::Write as u32, handle: file, segment_count: 1, segments: SEGMENTS, args }).unwrap();
    let stat: Stat = guest.host.memory.read(BUFFER + 64).unwrap();
    assert_eq!((reply.result, stat.size, stat), (2, 13, guest.stat("a").unwrap()));
}

#[test]
fn close_takes_several_handles() {
    let guest = Guest::new("close");
    let before = guest.host.handles.count();
    let files: Vec<u64> = (0..7).map(|_| guest.open("a", O_CREAT, 0o600).unwrap().into()).collect();
    guest.ask(Op::Close, 0, files[0] as u32, &files[1..3]).unwrap();
    // An unknown one is told of, and does not keep the others open.
    let rest = [u64::MAX, files[3], files[4], files[5], files[5], files[6]];
    assert_eq!(guest.ask(Op::Close, 0, files[1] as u32, &rest), Err(Errno::BADF));
    assert_eq!(guest.host.handles.count(), before);
}

#[test]
fn nothing_leads_out_of_the_tree() {
    let guest = Guest::new("beneath");
    std::os::unix::fs::symlink("/etc", guest.directory.join("out")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", guest.directory.join("file")).unwrap();
    assert_eq!(guest.open("out/passwd", 0, 0), Err(Errno::LOOP));
    assert_eq!(guest.open("file", 0, 0), Err(Errno::LOOP));
    assert_eq!(guest.open("file", O_CREAT, 0o600), Err(Errno::LOOP));
    assert_eq!(guest.open("../etc/passwd", 0, 0), Err(Errno::INVAL));
    assert_eq!(guest.open("/etc/passwd", 0, 0), Err(Errno::INVAL));
    assert_eq!(guest.stat("out").unwrap().mode & 0o170_000, 0o120_000);
    assert_eq!(guest.named(Op::Unlink, 0, "out/passwd", &[]), Err(Errno::LOOP));
}

#[test]
fn devices_and_fifos_are_not_opened() {
    let guest = Guest::new("devices");
    guest.named(Op::Make, 0, "fifo", &[u64::from(libc::S_IFIFO | 0o644), 0, own_ids(), 0]).unwrap();
    assert_eq!(guest.open("fifo", 0, 0), Err(Errno::PERM));
    let path = guest.open("fifo", libc::O_PATH, 0).unwrap();
    assert_eq!(guest.ask(Op::Open, 0, path, &[PATH, 0, 0, 0, 0, 0]), Err(Errno::PERM));
}

#[test]
fn walk_stops_where_it_should() {
    let guest = Guest::new("walk");
    std::fs::create_dir_all(guest.directory.join("a/b")).unwrap();
    std::os::unix::fs::symlink("target", guest.directory.join("a/l")).unwrap();
    let walk = |path| guest.named(Op::Walk, 0, path, &[BUFFER, 4096]).unwrap();
    assert_eq!((walk("a/b").result, walk("a/b").out[0]), (2, 0));
    assert_eq!((walk("a/x/y").result, walk("a/x/y").out[0]), (1, libc::ENOENT as u64));
    let link = walk("a/l/further");
    assert_eq!((link.result, link.out[0], link.out[1]), (2, 0, 6));
    assert_eq!(guest.bytes(BUFFER + 2 * size_of::<Stat>() as u64, 6), b"target");
    assert_eq!(guest.named(Op::Walk, 0, "a/b", &[BUFFER, 10]), Err(Errno::RANGE));
}

#[test]
fn siblings_are_names_of_one_directory() {
    let guest = Guest::new("siblings");
    std::fs::create_dir_all(guest.directory.join("a/b")).unwrap();
    std::fs::write(guest.directory.join("f"), "four").unwrap();
    let siblings = |path, room| guest.named(Op::Walk, WALK_SIBLINGS, path, &[BUFFER, room]);
    assert_eq!(siblings("f/b/a", 4096).unwrap().result, 3);
    let stat = |index: u64| guest.host.memory.read::<Stat>(BUFFER + index * size_of::<Stat>() as u64).unwrap();
    assert_eq!((stat(0).size, stat(1).mode, stat(2).mode & libc::S_IFMT), (4, 0, libc::S_IFDIR));
    assert_eq!(siblings("a/f", size_of::<Stat>() as u64), Err(Errno::RANGE));
    assert_eq!(siblings("a/../f", 4096), Err(Errno::INVAL));
    let [below, bytes] = guest.path(PATH_2, "a");
    let in_a = |bytes| guest.named(Op::Walk, WALK_SIBLINGS, "f/b", &[BUFFER, 4096, below, bytes]);
    assert_eq!(in_a(bytes).unwrap().result, 2);
    assert_eq!((stat(0).mode, stat(1).mode & libc::S_IFMT), (0, libc::S_IFDIR));
    assert_eq!(in_a(u64::MAX), Err(Errno::NAMETOOLONG));
}

#[test]
fn directories_links_and_names() {
    let guest = Guest::new("names");
    guest.named(Op::Make, 0, "d", &[u64::from(libc::S_IFDIR | 0o1755), BUFFER, own_ids(), 0]).unwrap();
    assert_eq!(guest.stat("d").unwrap().mode, 0o041_755);
    assert_eq!(guest.host.memory.read::<Stat>(BUFFER).unwrap(), guest.stat("d").unwrap());
    assert_eq!(guest.named(Op::Make, 0, "e", &[u64::from(libc::S_IFDIR | 0o755), u64::MAX, own_ids(), 0]), Err(Errno::FAULT));
    let [target, bytes] = guest.path(PATH_2, "where");
    guest.named(Op::Make, bytes as u16, "d/l", &[u64::from(libc::S_IFLNK | 0o777), 0, own_ids(), target]).unwrap();
    assert_eq!(guest.named(Op::ReadLink, 0, "d/l", &[BUFFER, 100]).unwrap().result, 5);
    assert_eq!(guest.bytes(BUFFER, 5), b"where");
    let [to, to_bytes] = guest.path(PATH_2, "d/m");
    guest.named(Op::Rename, 0, "d/l", &[to, to_bytes, u64::from(TREE)]).unwrap();
    assert_eq!(guest.stat("d/l"), Err(Errno::NOENT));
    let file = guest.open("d/f", O_CREAT | libc::O_RDWR, 0o600).unwrap();
    let [to, to_bytes] = guest.path(PATH_2, "g");
    guest.named(Op::Link, 0, "d/f", &[to, to_bytes, u64::from(TREE)]).unwrap();
    assert_eq!(guest.stat("g").unwrap().nlink, 2);
    // A file without a name gets one.
    let nameless = guest.open("d", libc::O_TMPFILE | libc::O_RDWR, 0o600).unwrap();
    let [to, to_bytes] = guest.path(PATH_2, "h");
    guest.ask(Op::Link, 0, nameless, &[PATH, 0, to, to_bytes, u64::from(TREE)]).unwrap();
    assert!(guest.stat("h").is_ok());
    assert_eq!(guest.named(Op::Unlink, 0, "d", &[]), Err(Errno::ISDIR));
    assert_eq!(guest.named(Op::Unlink, 1, "d", &[]), Err(Errno::NOTEMPTY));
    let directory = guest.open("d", libc::O_DIRECTORY, 0).unwrap();
    let listed = guest.ask(Op::List, 0, directory, &[0, BUFFER, 4096]).unwrap().result;
    assert!(listed > 0);
    let by_name = |name| {
        let [path, bytes] = guest.path(PATH_2, name);
        guest.ask(Op::List, 0, TREE, &[0, BUFFER, 4096, path, bytes]).map(|reply| reply.result)
    };
    assert_eq!(by_name("d"), Ok(listed));
    assert_eq!(by_name("d/f"), Err(Errno::NOTDIR));
    assert_eq!(by_name("d/../d"), Err(Errno::INVAL));
    assert_eq!(guest.ask(Op::List, 0, file, &[0, BUFFER, 4096]), Err(Errno::NOTDIR));
}

#[test]
fn attributes_change_by_name_and_handle() {
    let guest = Guest::new("attributes");
    let file = guest.open("f", O_CREAT | libc::O_RDWR, 0o600).unwrap();
    let set = |attributes: &Attributes, handle: Option<u32>| {
        guest.host.memory.write(BUFFER, attributes).unwrap();
        match handle {
            Some(handle) => guest.ask(Op::SetAttributes, 0, handle, &[PATH, 0, BUFFER]),
            None => guest.named(Op::SetAttributes, 0, "f", &[BUFFER]),
        }
    };
    let mtime = Time { sec: 1_000_000_000, nsec: 5, pad: 0 };
    let wanted = Attributes { mask: ATTR_MODE | ATTR_SIZE | ATTR_MTIME, mode: 0o4711, size: 100, mtime, ..Attributes::default() };
    set(&wanted, None).unwrap();
    let stat = guest.stat("f").unwrap();
    assert_eq!((stat.mode & 0o7777, stat.size, stat.mtime), (0o4711, 100, mtime));
    let path = guest.open("f", libc::O_PATH, 0).unwrap();
    for handle in [file, path] {
        set(&Attributes { mask: ATTR_MODE | ATTR_SIZE, mode: 0o640, size: 7, ..Attributes::default() }, Some(handle)).unwrap();
        assert_eq!((guest.stat("f").unwrap().mode & 0o7777, guest.stat("f").unwrap().size), (0o640, 7));
    }
    std::os::unix::fs::symlink("f", guest.directory.join("l")).unwrap();
    guest.host.memory.write(BUFFER, &Attributes { mask: ATTR_MODE, mode: 0o777, ..Attributes::default() }).unwrap();
    assert_eq!(guest.named(Op::SetAttributes, 0, "l", &[BUFFER]), Err(Errno::OPNOTSUPP));
}

#[test]
fn extended_attributes() {
    let guest = Guest::new("xattr");
    guest.open("f", O_CREAT, 0o600).unwrap();
    let [name, name_bytes] = guest.path(PATH_2, "user.colour");
    guest.host.memory.write_bytes(BUFFER, b"blue").unwrap();
    match guest.named(Op::Xattr, 1, "f", &[name, name_bytes, BUFFER, 4]) {
        Err(Errno::OPNOTSUPP) => return, // the file system has none
        other => other.unwrap(),
    };
    assert_eq!(guest.named(Op::Xattr, 4, "f", &[name, name_bytes, BUFFER, 4]), Err(Errno::EXIST));
    assert_eq!(guest.named(Op::Xattr, 0, "f", &[name, name_bytes, BUFFER, 0]).unwrap().result, 4);
    assert_eq!(guest.named(Op::Xattr, 0, "f", &[name, name_bytes, BUFFER, 3]), Err(Errno::RANGE));
    assert_eq!(guest.named(Op::Xattr, 3, "f", &[0, 0, BUFFER, 100]).unwrap().result, 12);
    guest.named(Op::Xattr, 2, "f", &[name, name_bytes, 0, 0]).unwrap();
    let [name, name_bytes] = guest.path(PATH_2, "security.selinux");
    assert_eq!(guest.named(Op::Xattr, 1, "f", &[name, name_bytes, BUFFER, 4]), Err(Errno::OPNOTSUPP));
}

#[test]
fn mappings_follow_the_size_of_their_file() {
    use crate::services::window::Access;
    let guest = Guest::new("map");
    let file = guest.open("f", O_CREAT | libc::O_RDWR, 0o600).unwrap();
    guest.write(file, &[7; 9000], 0, false).unwrap();
    assert_eq!(guest.ask(Op::Map, 0, file, &[0, 12288, DAX_WINDOW + 1]), Err(Errno::INVAL));
    assert_eq!(guest.ask(Op::Map, 0, file, &[0, 12288, 0x1000]), Err(Errno::FAULT));
    assert_eq!(guest.ask(Op::Map, 0, file, &[!4095, 12288, DAX_WINDOW]), Err(Errno::INVAL));
    guest.ask(Op::Map, 1, file, &[0, 16384, DAX_WINDOW]).unwrap();
    assert_eq!(guest.host.inaccessible(None), Access::Missing(DAX_WINDOW + 12288), "behind the end");
    guest.write(file, b"x", 12288, false).unwrap();
    assert_eq!(guest.host.inaccessible(None), Access::Again, "it has grown");
    assert_eq!(guest.host.inaccessible(None), Access::Unknown);
    // Truncated by the guest itself: known at once.
    guest.host.memory.write(BUFFER, &Attributes { mask: ATTR_SIZE, size: 100, ..Attributes::default() }).unwrap();
    guest.named(Op::SetAttributes, 0, "f", &[BUFFER]).unwrap();
    assert_eq!(guest.host.inaccessible(Some(DAX_WINDOW + 8192 + 5)), Access::Missing(DAX_WINDOW + 8192));
    assert_eq!(guest.host.inaccessible(Some(DAX_WINDOW + 5)), Access::Unknown);
    // A part in the middle is taken out.
    guest.ask(Op::Unmap, 0, 0, &[DAX_WINDOW + 4096, 4096]).unwrap();
    assert_eq!(guest.host.inaccessible(None), Access::Missing(DAX_WINDOW + 8192));
    assert!(guest.host.patch_missing());
    assert_eq!(guest.host.inaccessible(None), Access::Unknown);
    guest.ask(Op::Unmap, 0, 0, &[DAX_WINDOW, 4 << 20]).unwrap();
    let read_only = guest.open("f", 0, 0).unwrap();
    assert_eq!(guest.ask(Op::Map, 1, read_only, &[0, 4096, DAX_WINDOW]), Err(Errno::ACCESS));
}

#[test]
fn mappings_leave_the_vmm_its_own() {
    let guest = Guest::new("many");
    let pages = 1 << 16;
    guest.host.memory.publish_window(DAX_WINDOW + 2 * pages * 4096).unwrap();
    let file = guest.open("f", O_CREAT | libc::O_RDWR, 0o600).unwrap();
    guest.write(file, &[7; 4096], 0, false).unwrap();
    let at = |page| DAX_WINDOW + 2 * page * 4096;
    guest.ask(Op::Map, 0, file, &[0, 3 * 4096, at(pages - 2)]).unwrap();
    let refused = (0..pages).find(|&page| guest.ask(Op::Map, 0, file, &[0, 4096, at(page)]).is_err()).unwrap();
    assert!(refused < 30_000, "Linux gives a process 65,530, and each of these takes two");
    assert_eq!(guest.ask(Op::Map, 0, file, &[0, 4096, at(refused)]), Err(Errno::NOMEM));
    assert_eq!(guest.ask(Op::Unmap, 0, 0, &[at(pages - 2) + 4096, 4096]), Err(Errno::NOMEM), "that makes two of one");
    std::thread::spawn(|| ()).join().unwrap();
    guest.ask(Op::Unmap, 0, 0, &[at(0), 4096]).unwrap();
    guest.ask(Op::Map, 0, file, &[0, 4096, at(refused)]).unwrap();
}

#[test]
fn truncation_by_others_is_noticed() {
    use crate::services::window::Access;
    let guest = Guest::new("shared");
    let mut tree = Handle::new(rustix::io::dup(&guest.host.handles.get(TREE).unwrap().fd).unwrap(), Kind::Tree);
    tree.shared = true;
    guest.host.handles.plan(TREE, tree);
    let file = guest.open("f", O_CREAT | libc::O_RDWR, 0o600).unwrap();
    guest.write(file, &[7; 9000], 0, false).unwrap();
    guest.ask(Op::Map, 0, file, &[0, 12288, DAX_WINDOW]).unwrap();
    assert_eq!(guest.host.inaccessible(None), Access::Unknown);
    std::fs::File::options().write(true).open(guest.directory.join("f")).unwrap().set_len(100).unwrap();
    let changed = std::cell::Cell::new(false);
    while !changed.get() {
        guest.host.watcher.serve_some(1, &|| {
            guest.host.window_changed();
            changed.set(true);
        });
    }
    assert_eq!(guest.host.inaccessible(None), Access::Missing(DAX_WINDOW + 4096));
}

#[test]
fn memory_grows_to_its_limit() {
    let guest = Guest::new("memory");
    let grow = |bytes: u64| guest.ask(Op::Memory, abi::request::memory::GROW, 0, &[bytes]);
    assert_eq!(grow(1), Err(Errno::INVAL));
    assert_eq!(grow(1 << 40), Err(Errno::NOMEM));
    let reply = grow(2 << 20).unwrap();
    assert_eq!((reply.out[0], reply.out[1]), (34 << 20, 32 << 20));
    assert_eq!(guest.host.memory.write(33 << 20, &1u64), Ok(()));
    grow(30 << 20).unwrap();
    assert_eq!(grow(2 << 20), Err(Errno::NOMEM));
    let reply = guest.ask(Op::Memory, abi::request::memory::GROW_DAX, 0, &[2 << 20]).unwrap();
    assert_eq!(reply.out[0], DAX_WINDOW + (6 << 20));
}

#[test]
fn notifications_arrive() {
    let guest = Guest::new("notify");
    let watch = guest.named(Op::Notify, 0, "", &[u64::from(libc::IN_CREATE)]).unwrap().result;
    assert_eq!(guest.ask(Op::Notify, 2, TREE, &[0, BUFFER, 4096]), Err(Errno::AGAIN));
    guest.open("new", O_CREAT, 0o600).unwrap();
    assert!(guest.ask(Op::Notify, 2, TREE, &[0, BUFFER, 4096]).unwrap().result >= 16);
    guest.ask(Op::Notify, 1, TREE, &[0, 0, 0, watch]).unwrap();
}
