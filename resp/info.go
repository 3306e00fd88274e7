package resp

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"

	"github.com/redynamo/redynamo/coordinator"
)

// A section of INFO.
type section struct {
	name   string // lower case
	title  string
	usual  bool // part of plain INFO
	fields func(s *session) []Field
}

// sentinelSections are those of the Sentinel door.
func sentinelSections() []section {
	return []section{
		{"server", "Server", true, infoServer},
		{"clients", "Clients", true, infoClients},
		{"stats", "Stats", true, infoStats},
		{"cpu", "CPU", true, infoCPU},
		{"sentinel", "Sentinel", true, infoSentinel},
	}
}

// sections are in the order of Redis; the last ones are ours.
func sections() []section {
	return []section{
		{"server", "Server", true, infoServer},
		{"clients", "Clients", true, infoClients},
		{"memory", "Memory", true, infoMemory},
		{"persistence", "Persistence", true, infoPersistence},
		{"stats", "Stats", true, infoStats},
		{"replication", "Replication", true, infoReplication},
		{"cpu", "CPU", true, infoCPU},
		{"modules", "Modules", true, func(*session) []Field { return nil }},
		{"commandstats", "Commandstats", false, infoCommands},
		{"errorstats", "Errorstats", true, infoErrors},
		{"cluster", "Cluster", true, infoCluster},
		{"keyspace", "Keyspace", true, infoKeyspace},
		{"handoff", "Handoff", true, infoHandoff},
		{"redynamo", "Redynamo", true, infoRedynamo},
		{"divergence", "Divergence", true, infoDivergence},
		{"damage", "Damage", true, infoDamage},
	}
}

func runInfo(s *session, args [][]byte, w *Reply) {
	asked := make(map[string]bool, len(args))
	for _, arg := range args[1:] {
		asked[strings.ToLower(clip(arg, nameBytes))] = true
	}
	every := asked["all"] || asked["everything"]
	usual := len(args) == 1 || asked["default"]
	var b strings.Builder
	shown := sections()
	if s.door() == Sentinel {
		shown = sentinelSections()
	}
	for _, sec := range shown {
		if !every && !asked[sec.name] && !(usual && sec.usual) {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + sec.title + "\r\n")
		b.WriteString(lines(sec.fields(s)...))
	}
	w.Verbatim("txt", b.String())
}

func infoServer(s *session) []Field {
	id, now := s.admin().Identity(), s.now()
	up := int64(max(0, now.Sub(id.Started)).Seconds())
	return []Field{
		{"redis_version", emulated},
		{"redynamo_version", id.Version},
		{"redis_git_sha1", "00000000"},
		{"redis_git_dirty", "0"},
		{"redis_build_id", "0"},
		{"redis_mode", s.srv.mode()},
		{"os", runtime.GOOS + " " + runtime.GOARCH},
		{"arch_bits", strconv.Itoa(strconv.IntSize)},
		{"multiplexing_api", "go"},
		{"process_id", strconv.Itoa(os.Getpid())},
		{"run_id", id.RunID},
		{"tcp_port", strconv.Itoa(s.srv.cfg.Port)},
		{"server_time_usec", strconv.FormatInt(now.UnixMicro(), 10)},
		{"uptime_in_seconds", itoa(up)},
		{"uptime_in_days", itoa(up / 86400)},
		{"hz", "10"},
		{"configured_hz", "10"},
		{"lru_clock", itoa(now.Unix() & (1<<24 - 1))},
		{"executable", ""},
		{"config_file", ""},
	}
}

func infoClients(s *session) []Field {
	return []Field{
		{"connected_clients", strconv.Itoa(s.srv.connected())},
		{"cluster_connections", "0"},
		{"maxclients", strconv.Itoa(s.srv.params.maxClients())},
		{"client_recent_max_input_buffer", "0"},
		{"client_recent_max_output_buffer", "0"},
		{"blocked_clients", strconv.Itoa(s.srv.blocked())},
		{"tracking_clients", "0"},
		{"clients_in_timeout_table", "0"},
	}
}

// memory is the heap in use and what the process holds of the machine.
func memory() (used, held uint64) {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64() - samples[2].Value.Uint64()
}

func infoMemory(s *session) []Field {
	used, held := memory()
	st := s.admin().Stats()
	return []Field{
		{"used_memory", itoa(used)},
		{"used_memory_human", human(used)},
		{"used_memory_rss", itoa(held)},
		{"used_memory_rss_human", human(held)},
		{"used_memory_peak", itoa(held)},
		{"used_memory_peak_human", human(held)},
		{"used_memory_peak_perc", "100.00%"},
		{"used_memory_overhead", "0"},
		{"used_memory_startup", "0"},
		{"used_memory_dataset", itoa(st.CacheBytes)},
		{"used_memory_lua", "0"},
		{"used_memory_lua_human", "0B"},
		{"used_memory_scripts", "0"},
		{"used_memory_scripts_human", "0B"},
		{"number_of_cached_scripts", "0"},
		{"maxmemory", "0"},
		{"maxmemory_human", "0B"},
		{"maxmemory_policy", "noeviction"},
		{"mem_fragmentation_ratio", fmt.Sprintf("%.2f", float64(held)/float64(max(used, 1)))},
		{"mem_allocator", "go-" + strings.TrimPrefix(runtime.Version(), "go")},
		{"active_defrag_running", "0"},
		{"lazyfree_pending_objects", "0"},
	}
}

// human is a size as Redis abbreviates it.
func human(n uint64) string {
	for i, unit := range []string{"G", "M", "K"} {
		if size := uint64(1) << (10 * (3 - i)); n >= size {
			return fmt.Sprintf("%.2f%s", float64(n)/float64(size), unit)
		}
	}
	return itoa(n) + "B"
}

func infoPersistence(s *session) []Field {
	loading := "0"
	if !s.admin().Ready() {
		loading = "1"
	}
	now := itoa(s.now().Unix())
	return []Field{
		{"loading", loading},
		{"async_loading", "0"},
		{"rdb_changes_since_last_save", "0"},
		{"rdb_bgsave_in_progress", "0"},
		{"rdb_last_save_time", now},
		{"rdb_last_bgsave_status", "ok"},
		{"rdb_last_bgsave_time_sec", "-1"},
		{"rdb_current_bgsave_time_sec", "-1"},
		{"aof_enabled", "1"},
		{"aof_rewrite_in_progress", "0"},
		{"aof_rewrite_scheduled", "0"},
		{"aof_last_rewrite_time_sec", "-1"},
		{"aof_last_bgrewrite_status", "ok"},
		{"aof_last_write_status", "ok"},
		{"aof_current_size", itoa(s.admin().Stats().DiskBytes)},
	}
}

func infoStats(s *session) []Field {
	c, st := &s.srv.counts, s.admin().Stats()
	processed := s.srv.commandsProcessed()
	return []Field{
		{"total_connections_received", itoa(c.accepted.Load() + c.rejected.Load())},
		{"total_commands_processed", itoa(processed)},
		{"instantaneous_ops_per_sec", itoa(s.srv.rate(processed))},
		{"total_net_input_bytes", itoa(c.netInput.Load())},
		{"total_net_output_bytes", itoa(c.netOutput.Load())},
		{"instantaneous_input_kbps", "0.00"},
		{"instantaneous_output_kbps", "0.00"},
		{"rejected_connections", itoa(c.rejected.Load())},
		{"sync_full", "0"},
		{"sync_partial_ok", "0"},
		{"sync_partial_err", "0"},
		{"expired_keys", itoa(st.ExpiredKeys)},
		{"evicted_keys", "0"},
		{"evicted_clients", "0"},
		{"keyspace_hits", itoa(st.Hits)},
		{"keyspace_misses", itoa(st.Misses)},
		{"pubsub_channels", itoa(s.srv.hub.size(toChannel))},
		{"pubsub_patterns", itoa(s.srv.hub.size(toPattern))},
		{"pubsubshard_channels", itoa(s.srv.hub.size(toShard))},
		{"latest_fork_usec", "0"},
		{"total_forks", "0"},
		{"migrate_cached_sockets", "0"},
		{"tracking_total_keys", "0"},
		{"tracking_total_items", "0"},
		{"tracking_total_prefixes", "0"},
		{"unexpected_error_replies", itoa(c.panics.Load())},
		{"total_error_replies", itoa(c.errorReplies.Load())},
	}
}

// rate is the commands per second since INFO was last asked, at most once a
// second anew.
func (s *Server) rate(processed int64) int64 {
	now := s.cfg.Now().UnixMilli()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.rate
	if age := now - r.atMS; age >= 1000 {
		if r.atMS > 0 {
			r.perSecond = max(0, processed-r.processed) * 1000 / age
		}
		r.atMS, r.processed = now, processed
	}
	return r.perSecond
}

func infoReplication(s *session) []Field {
	return []Field{
		{"role", "master"},
		{"connected_slaves", "0"},
		{"master_failover_state", "no-failover"},
		{"master_replid", s.admin().Identity().ID.Hex40()},
		{"master_replid2", strings.Repeat("0", 40)},
		{"master_repl_offset", "0"},
		{"second_repl_offset", "-1"},
		{"repl_backlog_active", "0"},
		{"repl_backlog_size", "0"},
		{"repl_backlog_first_byte_offset", "0"},
		{"repl_backlog_histlen", "0"},
	}
}

func infoCPU(*session) []Field {
	user, sys := cpuSeconds()
	return []Field{
		{"used_cpu_sys", fmt.Sprintf("%.6f", sys)},
		{"used_cpu_user", fmt.Sprintf("%.6f", user)},
		{"used_cpu_sys_children", "0.000000"},
		{"used_cpu_user_children", "0.000000"},
	}
}

func infoCommands(s *session) []Field {
	var out []Field
	s.srv.table.each(func(row *command) {
		calls, rejected := row.stats.calls.Load(), row.stats.rejected.Load()
		if calls == 0 && rejected == 0 {
			return
		}
		usec := row.stats.nanos.Load() / 1000
		out = append(out, Field{"cmdstat_" + row.full, fmt.Sprintf(
			"calls=%d,usec=%d,usec_per_call=%.2f,rejected_calls=%d,failed_calls=%d",
			calls, usec, float64(usec)/float64(max(calls, 1)), rejected, row.stats.failed.Load())})
	})
	return out
}

func infoErrors(s *session) []Field {
	if n := s.srv.counts.errorReplies.Load(); n > 0 {
		return []Field{{"errorstat_ERR", "count=" + itoa(n)}}
	}
	return nil
}

func infoCluster(s *session) []Field {
	if s.door() == Cluster {
		return []Field{{"cluster_enabled", "1"}}
	}
	return []Field{{"cluster_enabled", "0"}}
}

// infoKeyspace gives what this node holds: the keys of the cluster take a
// question to every node (DBSIZE), which INFO must not wait for.
func infoKeyspace(s *session) []Field {
	st := s.admin().Stats()
	if st.Keys == 0 {
		return nil
	}
	return []Field{{"db0", fmt.Sprintf("keys=%d,expires=%d,avg_ttl=0", st.Keys, st.Expires)}}
}

func infoHandoff(s *session) []Field { return s.admin().Stats().Handoff }

func infoDamage(s *session) []Field { return s.admin().Stats().Damage }

func infoRedynamo(s *session) []Field {
	id, st, v, ring := s.admin().Identity(), s.admin().Stats(), s.view(), s.admin().RingStatus()
	live := 0
	for _, m := range v.Members {
		if m.Alive {
			live++
		}
	}
	own := []Field{
		{"node_id", id.ID.String()},
		{"door", s.door().String()},
		{"ready", strconv.FormatBool(s.admin().Ready())},
		{"data_dir", id.DataDir},
		{"ring_epoch", strconv.FormatUint(ring.Epoch, 16)},
		{"ring_members", strconv.Itoa(len(v.Members))},
		{"ring_live_members", strconv.Itoa(live)},
		{"ring_units", strconv.Itoa(ring.Units)},
		{"n", strconv.Itoa(ring.N)},
		{"r", strconv.Itoa(ring.R)},
		{"w", strconv.Itoa(ring.W)},
		{"fsync", st.Fsync},
		{"disk_bytes", itoa(st.DiskBytes)},
		{"cache_bytes", itoa(st.CacheBytes)},
		{"hints", itoa(st.Hints)},
		{"hint_bytes", itoa(st.HintBytes)},
		{"query_buffer_bytes", itoa(s.srv.query.used.Load())},
		{"unsent_reply_bytes", itoa(s.srv.replies.used.Load())},
		{"protocol_errors", itoa(s.srv.counts.protocolErrors.Load())},
		{"slow_subscribers_closed", itoa(s.srv.counts.slowSubscribers.Load())},
		{"unsent_message_bytes", itoa(s.srv.pushes.used.Load())},
		{"failed_logins", itoa(s.srv.counts.authFailed.Load())},
		{"moved_sent", itoa(s.srv.counts.nudges.Load())},
	}
	for _, f := range slices.Concat(st.Extra, st.Warnings) {
		if !slices.ContainsFunc(own, func(o Field) bool { return o.Name == f.Name }) {
			own = append(own, f)
		}
	}
	return own
}

// infoDivergence tells how far copies drifted apart, as this node saw it when it
// coordinated: how many live versions reads showed, what was repaired and how
// old that was, and the hints.
func infoDivergence(s *session) []Field {
	d := s.admin().Stats().Divergence
	var out []Field
	histogram := func(name string, buckets []coordinator.Bucket) {
		for _, b := range buckets {
			out = append(out, Field{name + b.Name, itoa(b.Count)})
		}
	}
	histogram("reads_with_versions_", d.Versions)
	out = append(out,
		Field{"siblings_seen", itoa(d.Siblings)},
		Field{"divergent_reads", itoa(d.DivergentReads)},
		Field{"repairs_begun", itoa(d.RepairsBegun)},
		Field{"repairs_done", itoa(d.RepairsDone)},
		Field{"repairs_failed", itoa(d.RepairsFailed)},
		Field{"repairs_dropped", itoa(d.RepairsDropped)},
	)
	histogram("repairs_of_age_ms_", d.Staleness)
	return append(out,
		Field{"repairs_of_age_unknown", itoa(d.StalenessUnknown)},
		Field{"hints_stored", itoa(d.HintsStored)},
		Field{"hints_kept", itoa(d.HintsKept)},
		Field{"hints_failed", itoa(d.HintsFailed)},
	)
}
