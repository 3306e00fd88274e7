# Debian's ruby-redis. The arguments and what is printed are those of main.go.
#
#   ruby redisrb.rb redis-rb plain|cluster 2 HOST:PORT,HOST:PORT,... [write]
require 'redis'

CLIENT, DOOR, PROTOCOL, LIST = ARGV
URLS = LIST.split(',').map { |a| "redis://#{a}" }
PREFIX = "#{CLIENT}:#{DOOR}:#{PROTOCOL}:".freeze
# A pipeline of the cluster client must stay within a slot, so a tag names one.
MANY = (0...300).map { |i| "#{PREFIX}{#{i % 10}}many:#{i}" }
$stdout.sync = true

def connect(at)
  return Redis.new(cluster: URLS.rotate(at), timeout: 5) if DOOR == 'cluster'

  Redis.new(url: URLS.rotate(at).first, timeout: 5)
end

def same(got, want)
  raise "got #{got.inspect}, want #{want.inspect}" unless got == want
end

CHECKS = {
  'strings' => lambda do |writer, reader|
    blob = (0..255).to_a.pack('C*') * 40
    same(writer.set("#{PREFIX}blob", blob), 'OK')
    same(reader.get("#{PREFIX}blob").b, blob)
    same(reader.get("#{PREFIX}absent"), nil)
  end,
  'pipeline' => lambda do |writer, reader|
    MANY.group_by { |k| k[/{.*}/] }.each_value do |keys|
      same(writer.pipelined { |p| keys.each { |k| p.set(k, "value of #{k}") } }, ['OK'] * keys.size)
    end
    MANY.each { |k| same(reader.get(k), "value of #{k}") }
  end,
  'expiry' => lambda do |writer, reader|
    writer.set("#{PREFIX}soon", 'over', ex: 100)
    left = reader.ttl("#{PREFIX}soon")
    same(left > 90 && left <= 100, true)
  end,
  'scan' => ->(_, reader) { same(reader.scan_each(match: "#{PREFIX}*many:*", count: 50).to_a.uniq.sort, MANY.sort) },
  'multi' => lambda do |writer, _|
    key = "#{PREFIX}multi"
    same(writer.multi { |tx| tx.set(key, 'all or none'); tx.get(key) }, ['OK', 'all or none'])
  end,
  'pubsub' => lambda do |_, _| # its subscriber blocks, so another thread publishes
    publisher = Thread.new do
      c = connect(0)
      2000.times { c.publish("#{PREFIX}news", 'hello'); sleep 0.01 }
    end
    heard = nil
    listener = connect(1)
    listener.subscribe("#{PREFIX}news") do |on|
      on.message { |_, text| heard = text; listener.unsubscribe }
    end
    publisher.kill
    same(heard, 'hello')
  end,
  'vctx' => lambda do |writer, reader|
    key = "#{PREFIX}cart:#{Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond)}"
    blank, values = writer.call('VCTX.GET', key)
    same(values, [])
    same(writer.call('VCTX.SET', key, 'sibling 0', blank)[1], 1)
    same(reader.call('VCTX.SET', key, 'sibling 1', blank)[1], 2)
    token, values = reader.call('VCTX.GET', key)
    same(values.sort, ['sibling 0', 'sibling 1'])
    same(writer.call('VCTX.SET', key, 'both', token)[1], 1)
    same(reader.call('VCTX.GET', key)[1], ['both'])
  end
}.freeze

def now_ms = Process.clock_gettime(Process::CLOCK_REALTIME, :millisecond)

# Writes until it is killed; a client for one node is given the next after an error.
def write
  one = nil
  at = 0
  (0..).each do |i|
    sleep 0.01
    begin_ms = now_ms
    what = 'ok'
    begin
      one ||= connect(at)
      one.set("kill:#{CLIENT}:#{DOOR}:#{i % 1000}", i.to_s)
    rescue StandardError => e
      what = e.inspect.tr("\n", ' ')
      one, at = nil, at + 1 unless DOOR == 'cluster'
    end
    puts "#{begin_ms} #{now_ms} #{what}"
  end
end

write if ARGV[4] == 'write'
puts "version #{Redis::VERSION}"
writer, reader = connect(0), connect(-1)
CHECKS.each do |name, check|
  check.call(writer, reader)
  puts "#{name} ok"
rescue StandardError => e
  puts "#{name} wrong #{e.inspect.tr("\n", ' ')}"
end
