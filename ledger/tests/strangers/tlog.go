// Judges an export, or the proofs of a session's bundle, with golang.org/x/mod/sumdb alone.
package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// tiles reads a directory of C2SP tlog-tiles, whose paths do not say the height.
type tiles struct{ dir string }

func (tiles) Height() int                          { return 8 }
func (tiles) SaveTiles(t []tlog.Tile, d [][]byte)   {}
func (r tiles) ReadTiles(t []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range t {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(r.dir, path))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s has %d bytes", path, len(data))
		}
		out = append(out, data)
	}
	return out, nil
}

func hashes(texts []string) (out []tlog.Hash) {
	for _, text := range texts {
		bytes, err := hex.DecodeString(text)
		check(err)
		var hash tlog.Hash
		if copy(hash[:], bytes) != tlog.HashSize || len(bytes) != tlog.HashSize {
			check(fmt.Errorf("a hash has %d bytes", len(bytes)))
		}
		out = append(out, hash)
	}
	return out
}

func checkpoint(path string, verifier note.Verifier) (int64, tlog.Hash) {
	data, err := os.ReadFile(path)
	check(err)
	opened, err := note.Open(data, note.VerifierList(verifier))
	check(err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		check(fmt.Errorf("not a checkpoint of %s", verifier.Name()))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err)
	root, err := tlog.ParseHash(lines[2])
	check(err)
	return size, root
}

func main() {
	dir, vkey := os.Args[1], os.Args[2]
	verifier, err := note.NewVerifier(vkey)
	check(err)
	size, root := checkpoint(filepath.Join(dir, "checkpoint"), verifier)
	if _, err := os.Stat(filepath.Join(dir, "tile")); err == nil {
		tree(dir, size, root)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "proof.json")); err == nil {
		proofs(dir, data, size, root, verifier)
	}
	if path := os.Getenv("KEPT"); path != "" {
		continues(dir, path, size, root, verifier)
	}
	fmt.Println("good", size)
}

// continues holds a checkpoint that was kept elsewhere against the tree that is here.
func continues(dir, path string, size int64, root tlog.Hash, verifier note.Verifier) {
	kept, keptRoot := checkpoint(path, verifier)
	if kept > size {
		check(fmt.Errorf("%d entries were signed, and %d are here", kept, size))
	}
	here := root
	if kept < size {
		var err error
		here, err = tlog.TreeHash(kept, tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{dir}))
		check(err)
	}
	if here != keptRoot {
		check(fmt.Errorf("the first %d entries are not those that were signed", kept))
	}
}

// tree authenticates every leaf by the tiles, and every entry that is there by its leaf.
func tree(dir string, size int64, root tlog.Hash) {
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{dir})
	computed, err := tlog.TreeHash(size, reader)
	check(err)
	if computed != root {
		check(fmt.Errorf("the tiles lead to another root"))
	}
	for first := int64(0); first < size; first += 256 {
		width := size - first
		if width > 256 {
			width = 256
		}
		var indexes []int64
		for n := first; n < first+width; n++ {
			indexes = append(indexes, tlog.StoredHashIndex(0, n))
		}
		leaves, err := reader.ReadHashes(indexes)
		check(err)
		path := tlog.Tile{H: 8, L: -1, N: first / 256, W: int(width)}.Path()
		path = strings.Replace(path, "tile/8/data/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(dir, path))
		if os.IsNotExist(err) && os.Getenv("PART") != "" {
			continue
		}
		check(err)
		for _, leaf := range leaves {
			if len(data) < 2 || len(data) < 2+(int(data[0])<<8|int(data[1])) {
				check(fmt.Errorf("%s is too short", path))
			}
			end := 2 + (int(data[0])<<8 | int(data[1]))
			if tlog.RecordHash(data[2:end]) != leaf {
				check(fmt.Errorf("%s holds another entry", path))
			}
			data = data[end:]
		}
		if len(data) != 0 {
			check(fmt.Errorf("%s is too long", path))
		}
	}
}

type included struct {
	Entry string   `json:"entry"`
	Path  []string `json:"path"`
}

// proofs runs every proof of a bundle, and follows a session from its close to its opening.
func proofs(dir string, data []byte, size int64, root tlog.Hash, verifier note.Verifier) {
	var proof struct {
		Opened   included   `json:"opened"`
		Orders   []included `json:"orders"`
		Closed   []string   `json:"closed"`
		Previous []string   `json:"previous"`
	}
	check(json.Unmarshal(data, &proof))
	for _, item := range append(proof.Orders, proof.Opened) {
		entry, err := base64.StdEncoding.DecodeString(item.Entry)
		check(err)
		check(tlog.CheckRecord(hashes(item.Path), size, root, seq(entry), tlog.RecordHash(entry)))
	}
	if _, err := os.Stat(filepath.Join(dir, "previous.checkpoint")); err == nil {
		old, oldRoot := checkpoint(filepath.Join(dir, "previous.checkpoint"), verifier)
		check(tlog.CheckTree(hashes(proof.Previous), size, root, old, oldRoot))
	}
	text, err := os.ReadFile(filepath.Join(dir, "session.jsonl"))
	if os.IsNotExist(err) {
		return
	}
	check(err)
	var before tlog.Hash
	var last []byte
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		var record struct{ Entry string }
		check(json.Unmarshal([]byte(line), &record))
		last, err = base64.StdEncoding.DecodeString(record.Entry)
		check(err)
		if seq(last) < 0 || string(last[40:72]) != string(before[:]) {
			check(fmt.Errorf("an entry does not follow the one before"))
		}
		before = tlog.RecordHash(last)
	}
	if last[3] != 17 {
		check(fmt.Errorf("the session's close is missing"))
	}
	check(tlog.CheckRecord(hashes(proof.Closed), size, root, seq(last), before))
}

// seq reads an entry's number.
func seq(entry []byte) (n int64) {
	if len(entry) < 104 {
		check(fmt.Errorf("an entry is too short"))
	}
	for _, b := range entry[8:16] {
		n = n<<8 | int64(b)
	}
	return n
}
