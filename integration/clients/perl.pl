# Debian's libredis-perl. The arguments and what is printed are those of main.go.
#
#   perl perl.pl perl-redis plain 2 HOST:PORT,HOST:PORT,... [write]
use strict;
use warnings;
use Redis;
use Time::HiRes qw(sleep time);

my ($client, $door, $protocol, $list, $mode) = @ARGV;
my @nodes  = split /,/, $list;
my $prefix = "$client:$door:$protocol:";
my $many   = 300;
$| = 1;

sub dial {
    my ($at) = @_;
    return Redis->new(server => $nodes[$at % @nodes], cnx_timeout => 5, read_timeout => 5, write_timeout => 5);
}

sub same {
    my ($got, $want) = map { defined $_ ? $_ : 'undef' } @_;
    die "got '$got', want '$want'\n" if $got ne $want;
}

# raw sends a command whose name could not be written as that of a method.
sub raw {
    my ($c, $name, @args) = @_;
    return $c->$name(@args);
}

my ($writer, $reader);
my @checks = (
    [strings => sub {
        my $blob = join('', map { chr } 0 .. 255) x 40;
        same($writer->set($prefix . 'blob', $blob), 'OK');
        same($reader->get($prefix . 'blob'), $blob);
        same($reader->get($prefix . 'absent'), undef);
    }],
    [pipeline => sub {
        my $done = 0;
        $writer->set("${prefix}many:$_", "value $_", sub { $done++ if $_[0] eq 'OK' }) for 0 .. $many - 1;
        $writer->wait_all_responses;
        same($done, $many);
        same($reader->get("${prefix}many:$_"), "value $_") for 0 .. $many - 1;
    }],
    [expiry => sub {
        same($writer->setex($prefix . 'soon', 100, 'over'), 'OK');
        my $left = $reader->ttl($prefix . 'soon');
        same($left > 90 && $left <= 100, 1);
    }],
    [scan => sub {
        my ($cursor, $keys, %met) = (0);
        do {
            ($cursor, $keys) = $reader->scan($cursor, MATCH => "${prefix}many:*", COUNT => 50);
            $met{$_} = 1 for @$keys;
        } while ($cursor ne '0');
        same(scalar keys %met, $many);
    }],
    [multi => sub {
        $writer->multi;
        $writer->set($prefix . 'multi', 'all or none');
        $writer->get($prefix . 'multi');
        my @replies = $writer->exec;
        same($replies[1], 'all or none');
    }],
    [pubsub => sub {
        my ($listener, $heard) = (dial(1), '');
        $listener->subscribe($prefix . 'news', sub { $heard = $_[0] });
        for (1 .. 2000) { # one may be lost where nodes take each other for dead
            $writer->publish($prefix . 'news', 'hello');
            $listener->wait_for_messages(0.01);
            last if $heard;
        }
        same($heard, 'hello');
    }],
    [vctx => sub {
        my $key = sprintf '%scart:%.6f', $prefix, time;
        my ($blank, $values) = raw($writer, 'VCTX.GET', $key);
        same(scalar @$values, 0);
        same((raw($writer, 'VCTX.SET', $key, 'sibling 0', $blank))[1], 1);
        same((raw($reader, 'VCTX.SET', $key, 'sibling 1', $blank))[1], 2);
        (my $token, $values) = raw($reader, 'VCTX.GET', $key);
        same(join(',', sort @$values), 'sibling 0,sibling 1');
        same((raw($writer, 'VCTX.SET', $key, 'both', $token))[1], 1);
        (undef, $values) = raw($reader, 'VCTX.GET', $key);
        same("@$values", 'both');
    }],
);

# write_on writes until it is killed, at the next node after an error.
sub write_on {
    my ($c, $at) = (undef, 0);
    for (my $i = 0; ; $i++) {
        sleep 0.01;
        my ($begin, $what) = (int(time * 1000), 'ok');
        unless (eval { $c ||= dial($at); $c->set("kill:$client:$door:" . $i % 1000, $i); 1 }) {
            ($what = "error: $@") =~ s/\n/ /g;
            ($c, $at) = (undef, $at + 1);
        }
        printf "%d %d %s\n", $begin, int(time * 1000), $what;
    }
}

write_on() if ($mode // '') eq 'write';
print "version $Redis::VERSION\n";
($writer, $reader) = (dial(0), dial(-1));
for (@checks) {
    my ($name, $check) = @$_;
    if (eval { $check->(); 1 }) { print "$name ok\n" }
    else { (my $what = $@) =~ s/\n/ /g; print "$name wrong $what\n" }
}
