package share

import "math/bits"

// Buckets is the number of buckets of a histogram. The last one is for
// everything from about a minute up.
const Buckets = 8 * 23

// Counts is how many latencies fell into each bucket.
type Counts [Buckets]float64

// Bucket is the bucket of a latency in microseconds: its highest bit, and the
// three bits that follow.
func Bucket(us int64) int {
	if us < 8 {
		return int(max(us, 0))
	}
	top := bits.Len64(uint64(us)) - 1
	return min(8*(top-2)+int(us>>(top-3)&7), Buckets-1)
}

// upper is the end of a bucket, in microseconds.
func upper(bucket int) int64 {
	if bucket < 8 {
		return int64(bucket) + 1
	}
	return int64(bucket%8+9) << (bucket/8 - 1)
}

// add counts what is in o.
func (c *Counts) add(o *Counts) {
	for i, n := range o {
		c[i] += n
	}
}

// swap counts what is in o instead of what is in old, which was counted before.
// Both are whole numbers, so no rounding is left behind.
func (c *Counts) swap(o, old *Counts) {
	for i, n := range o {
		c[i] += n - old[i]
	}
}

// total is how many latencies were counted.
func (c *Counts) total() float64 {
	sum := 0.0
	for _, n := range c {
		sum += n
	}
	return sum
}

// p99 is the latency that 99 % stay below, in microseconds; 0 of nothing.
func (c *Counts) p99() int64 {
	above := c.total() / 100
	for i := Buckets - 1; i >= 0; i-- {
		if c[i] > 0 && c[i] >= above {
			return upper(i)
		}
		above -= c[i]
	}
	return 0
}
