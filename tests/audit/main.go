// The audit log as an outsider reads it: golang.org/x/mod/sumdb/note opens its checkpoints, and tlog checks its tiles and
// proofs. Nothing here is Dayfly's, but for the paths.
//
//	audit URL CA-FILE KEY [CHECKPOINT...]   checks the log at URL (https://HOST:PORT/log), whose checkpoints KEY verifies, and
//	                                        that it is the one of each CHECKPOINT, a file with an earlier one, grown.
//
// It fails, and says why, unless all of that holds.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: audit URL CA-FILE KEY [CHECKPOINT...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
		os.Exit(1)
	}
}

func run(url, caFile, key string, earlier []string) error {
	log, err := open(url, caFile, key)
	if err != nil {
		return err
	}
	text, err := log.get("/checkpoint")
	if err != nil {
		return err
	}
	now, err := log.read(text)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(now, log)
	if err := log.checkLeaves(now, hashes); err != nil {
		return err
	}
	for _, file := range earlier {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		then, err := log.read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := log.checkGrown(then, now, hashes); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	// Every earlier size, too, though nobody signed that.
	for size := now.N; size > 0; size = size * 2 / 3 {
		root, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return err
		}
		if err := log.checkGrown(tlog.Tree{N: size, Hash: root}, now, hashes); err != nil {
			return err
		}
	}
	fmt.Printf("%d events, root %v\n", now.N, now.Hash)
	return nil
}

type log struct {
	url      string
	client   http.Client
	verifier note.Verifier
	// Tiles that were read, by their paths.
	tiles map[string][]byte
}

func open(url, caFile, key string) (*log, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	return &log{url, http.Client{Transport: transport}, verifier, map[string][]byte{}}, nil
}

func (log *log) get(path string) ([]byte, error) {
	answer, err := log.client.Get(log.url + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return body, err
}

// read opens a checkpoint: a note by the one key, whose first lines are the key's name, a size and a root.
func (log *log) read(text []byte) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(log.verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != log.verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("no checkpoint of %s: %q", log.verifier.Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// checkLeaves reads every leaf's hash from tiles, which tlog checks against the root, and has the log prove each.
func (log *log) checkLeaves(tree tlog.Tree, hashes tlog.HashReader) error {
	for at := int64(0); at < tree.N; at++ {
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, at)})
		if err != nil {
			return err
		}
		// Each proof is a call: all of the first and last ones, and some between.
		if at > 20 && at < tree.N-20 && at%17 != 0 {
			continue
		}
		var served struct {
			LeafHash tlog.Hash   `json:"leaf_hash"`
			Hashes   []tlog.Hash `json:"hashes"`
		}
		if err := log.proof(fmt.Sprintf("/proof/inclusion?position=%d&size=%d", at+1, tree.N), &served); err != nil {
			return err
		}
		if served.LeafHash != leaf[0] {
			return fmt.Errorf("position %d: the proof is of another leaf than the tile has", at+1)
		}
		if err := tlog.CheckRecord(served.Hashes, tree.N, tree.Hash, at, leaf[0]); err != nil {
			return fmt.Errorf("position %d: %w", at+1, err)
		}
		own, err := tlog.ProveRecord(tree.N, at, hashes)
		if err != nil {
			return err
		}
		if !same(own, served.Hashes) {
			return fmt.Errorf("position %d: tlog proves it by other hashes", at+1)
		}
	}
	return nil
}

func (log *log) checkGrown(then, now tlog.Tree, hashes tlog.HashReader) error {
	var served struct {
		Hashes []tlog.Hash `json:"hashes"`
	}
	if err := log.proof(fmt.Sprintf("/proof/consistency?from=%d&to=%d", then.N, now.N), &served); err != nil {
		return err
	}
	if err := tlog.CheckTree(served.Hashes, now.N, now.Hash, then.N, then.Hash); err != nil {
		return fmt.Errorf("from %d to %d events: %w", then.N, now.N, err)
	}
	own, err := tlog.ProveTree(now.N, then.N, hashes)
	if err != nil {
		return err
	}
	if !same(own, served.Hashes) {
		return fmt.Errorf("from %d to %d events: tlog proves it by other hashes", then.N, now.N)
	}
	return nil
}

func (log *log) proof(path string, into any) error {
	text, err := log.get(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

func same(one, other []tlog.Hash) bool {
	return len(one) == len(other) && (len(one) == 0 || reflect.DeepEqual(one, other))
}

// Height, ReadTiles and SaveTiles make it a tlog.TileReader: of C2SP tlog-tiles, whose paths do not name the height.
func (log *log) Height() int { return 8 }

func (log *log) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range tiles {
		path := "/tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		if log.tiles[path] == nil {
			data, err := log.get(path)
			if err != nil {
				return nil, err
			}
			log.tiles[path] = data
		}
		read = append(read, log.tiles[path])
	}
	return read, nil
}

func (log *log) SaveTiles([]tlog.Tile, [][]byte) {}
