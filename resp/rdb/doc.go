// Package rdb reads and writes what Redis keeps: strings as DUMP answers them, and
// files. It is arithmetic but for the io.Reader that a file comes from.
//
// resp serves DUMP and RESTORE with it, cmd/redynamo imports files.
//
// # Files
//
// A file is a stream of records behind its magic word, without an index. Numbers are
// little-endian unless said otherwise; length and string are drawn in dump.go.
//
//	9 bytes   "REDIS" and the version, four digits
//	records   each a byte and what it announces:
//	            244 slot      3 lengths
//	            245 library   string: functions
//	            246 library   of a release candidate: 2 strings, a length, a string if
//	                          that is 1, a string
//	            247 module    3 lengths, fields as in a module's value
//	            248 idle      length           } of the key that follows
//	            249 frequency 1 byte           }
//	            252 expiry    8 bytes, ms      }
//	            253 expiry    4 bytes, s       }
//	            250 field     2 strings: who wrote the file and when
//	            251 sizes     2 lengths
//	            254 database  length: of the keys that follow
//	            255 end
//	            else the type of a value: string (the key), value
//	8 bytes   CRC-64 (Jones) of all before, or zeros, since version 5
//
// Values other than strings are only stepped over; skip.go knows how.
//
// A File never holds more than a buffer and one key and value, whatever the lengths in
// the file say: memory is taken as bytes arrive, and what is longer than the limits is
// stepped over.
package rdb
