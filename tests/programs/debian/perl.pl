#!/usr/bin/perl
# Perl: text, processes, pipes, sockets, signals, sorting, packing.
use strict; use warnings; use POSIX qw(:sys_wait_h floor); use Socket; use IO::Handle; use Time::HiRes qw(sleep);
STDOUT->autoflush(1);
my %count; $count{length $_}++ for map { $_ * $_ } 1 .. 5000; print "$_ $count{$_}\n" for sort { $a <=> $b } keys %count;
(my $t = "the quick brown fox") =~ s/(\w+)/\u$1/g; print "$t\n";
print join(",", sort { $b <=> $a } grep { $_ % 7 == 0 } 1 .. 50), "\n";
my $pid = fork // die; if (!$pid) { exit 5 } waitpid $pid, 0; print "child ", WEXITSTATUS($?), "\n";
print "pipe: ", `echo from a command | tr a-z A-Z`;
open my $p, "-|", "sort", "-n" or die if 0; open my $w, "|-", "sort -rn | head -n 1" or die; print $w "$_\n" for 1 .. 1000; close $w;
local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select undef, undef, undef, 10; }; print "caught $@";
local $SIG{USR1} = sub { print "USR1\n" }; kill USR1 => $$;
socketpair my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die; $a->autoflush(1); print $a "line\n"; print "socket: ", scalar <$b>;
print unpack("H*", pack "NnC/a*", 1, 2, "abc"), "\n";
open my $f, "+>", undef or die; print $f "line $_\n" for 1 .. 10000; seek $f, 0, 0; my $n = () = <$f>; print "$n lines\n";
opendir my $d, "/usr/lib/python3.11/json" or die; print join(" ", sort grep { /py$/ } readdir $d), "\n";
my @s = stat $0; printf "%o %d\n", $s[2] & 07777, $s[7] > 0; print "ok\n" if -x $0 && !-d $0;
my @pids = map { my $k = $_; my $q = fork // die; if (!$q) { sleep 0.01 * (5 - $k); exit $k } $q } 1 .. 4; my $sum = 0; for (@pids) { waitpid $_, 0; $sum += $? >> 8 } print "sum $sum\n";
print floor(3.7), " ", sprintf("%.10f", exp 1), "\n"; exit 0;
