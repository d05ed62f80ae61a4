// Command etcd-replay makes an etcd data folder from a snapshot and the changes that came after it.
//
// Upstream restores snapshots only. This program opens a copy of one with upstream's own storage, applies each later
// revision as one transaction, so that the revisions are exactly those that the first etcd gave, and lets upstream's
// restore make the data folder from that. The data folder's revisions go on far behind all that clients may have seen
// (upstream's "revision bump"), and what was before counts as compacted, so that everybody who watched reads anew.
//
// Standard input is a line of JSON, the plan, which may hold keys and so is never an argument. The changes are lines of
// JSON in a file, a revision each, in their order. Standard output is one line of JSON: what was made.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/nacl/secretbox"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	page = 1000
	// How Kubernetes begins what the provider secretbox encrypted; the key's name and a colon follow.
	sealed = "k8s:enc:secretbox:v1:"
	// How long a restored etcd may take to start in a drill.
	startLimit = time.Minute
	// How long a lease lives of which the backup does not know.
	unknownLease = 3600
)

// plan says what is made of the snapshot, besides replaying.
type plan struct {
	// Until is the last revision that is applied.
	Until int64 `json:"until"`
	// Remove names prefixes of keys that the result shall not have.
	Remove []string `json:"remove"`
	// Keys are what may have encrypted values in the backup, by name. SealKey does in the result, under the name Seal,
	// which may be the name of another key in the backup: each cluster names its keys by itself.
	Keys    map[string][]byte `json:"keys"`
	Seal    string            `json:"seal"`
	SealKey []byte            `json:"sealKey"`
}

type event struct {
	Key    []byte `json:"key"`
	Value  []byte `json:"value"`
	Lease  int64  `json:"lease,string"`
	Delete bool   `json:"delete"`
}

type revision struct {
	Revision int64   `json:"revision"`
	Events   []event `json:"events"`
	// Leases are the lives in seconds of leases that this revision attaches first, by number.
	Leases map[int64]int64 `json:"leases"`
}

type result struct {
	Revision int64  `json:"revision"`
	Keys     int    `json:"keys"`
	Digest   string `json:"digest"`
	Applied  int    `json:"applied"`
	Resealed int    `json:"resealed"`
	// Served is the digest of what an etcd answered that was started on the result; empty if none was.
	Served string `json:"served"`
}

func main() {
	options := struct{ snapshot, changes, work, output, name, peer, token *string }{
		flag.String("snapshot", "", "file of the snapshot, as etcd gives it"),
		flag.String("changes", os.DevNull, "file of the changes after it"),
		flag.String("work", "", "folder for what is needed meanwhile"),
		flag.String("output", "", "data folder to make; only a digest is made without it"),
		flag.String("name", "etcd-0", "name of the member"),
		flag.String("peer-url", "http://127.0.0.1:2380", "URL of the member for its peers"),
		flag.String("token", "restored", "token of the new cluster of members"),
	}
	bump := flag.Uint64("bump", 1_000_000_000, "how far the revisions of the result are behind those of the snapshot")
	start := flag.Bool("start", false, "start an etcd on the result and read everything from it")
	flag.Parse()
	var wanted plan
	err := readLine(bufio.NewReader(os.Stdin), &wanted)
	if err != nil {
		fail(fmt.Errorf("the plan cannot be read: %w", err))
	}
	changes, err := os.Open(*options.changes)
	if err != nil {
		fail(err)
	}
	defer changes.Close()
	made, err := replay(*options.snapshot, *options.work, bufio.NewReaderSize(changes, 1<<20), wanted)
	if err == nil && *options.output != "" {
		manager := snapshot.NewV3(zap.NewNop())
		err = manager.Restore(snapshot.RestoreConfig{
			SnapshotPath:        filepath.Join(*options.work, "db"),
			Name:                *options.name,
			OutputDataDir:       *options.output,
			PeerURLs:            []string{*options.peer},
			InitialCluster:      *options.name + "=" + *options.peer,
			InitialClusterToken: *options.token,
			SkipHashCheck:       true,
			RevisionBump:        *bump,
			MarkCompacted:       *bump > 0,
		})
	}
	if err == nil && *start {
		made.Served, err = serve(*options.output, *options.name, *options.peer, *options.token)
	}
	if err != nil {
		fail(err)
	}
	if err = json.NewEncoder(os.Stdout).Encode(made); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "etcd-replay:", err)
	os.Exit(1)
}

// readLine reads one line of JSON into target; io.EOF if there is none.
func readLine(lines *bufio.Reader, target any) error {
	line, err := lines.ReadBytes('\n')
	if len(bytes.TrimSpace(line)) == 0 {
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(line, target)
}

// replay makes the file "db" in the work folder: the snapshot with all later revisions.
func replay(source, work string, lines *bufio.Reader, wanted plan) (result, error) {
	made := result{}
	target := filepath.Join(work, "db")
	if err := copyVerified(source, target); err != nil {
		return made, err
	}
	storage := backend.NewDefaultBackend(zap.NewNop(), target)
	defer storage.Close()
	store := mvcc.NewStore(zap.NewNop(), storage, &lease.FakeLessor{}, mvcc.StoreConfig{})
	defer store.Close()
	known := leases(storage)
	for {
		var next revision
		err := readLine(lines, &next)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return made, fmt.Errorf("a revision cannot be read: %w", err)
		}
		if next.Revision <= store.Rev() {
			continue // The snapshot has it.
		}
		if wanted.Until > 0 && next.Revision > wanted.Until {
			continue
		}
		if next.Revision != store.Rev()+1 {
			return made, fmt.Errorf("revision %d comes after %d", next.Revision, store.Rev())
		}
		grant(storage, known, next)
		transaction := store.Write(traceutil.TODO())
		for _, change := range next.Events {
			if change.Delete {
				transaction.DeleteRange(change.Key, nil)
			} else {
				transaction.Put(change.Key, change.Value, lease.LeaseID(change.Lease))
			}
		}
		transaction.End()
		if store.Rev() != next.Revision {
			return made, fmt.Errorf("revision %d changed nothing: what it deletes was not there", next.Revision)
		}
		made.Applied++
	}
	if wanted.Until > 0 && store.Rev() != wanted.Until {
		return made, fmt.Errorf("revision %d is not reached: the last one is %d", wanted.Until, store.Rev())
	}
	made.Revision = store.Rev()
	hash := sha256.New()
	err := eachKey(store, []byte{0}, []byte{}, func(entry *mvccpb.KeyValue) error {
		made.Keys++
		add(hash, entry)
		return nil
	})
	if err != nil {
		return made, err
	}
	made.Digest = hex.EncodeToString(hash.Sum(nil))
	for _, prefix := range wanted.Remove {
		transaction := store.Write(traceutil.TODO())
		transaction.DeleteRange([]byte(prefix), []byte(clientv3.GetPrefixRangeEnd(prefix)))
		transaction.End()
	}
	if wanted.Seal != "" {
		if made.Resealed, err = reseal(store, wanted); err != nil {
			return made, err
		}
	}
	store.Commit()
	return made, nil
}

// copyVerified copies a snapshot without the SHA-256 that etcd puts at its end, which it checks.
func copyVerified(source, target string) error {
	input, err := os.Open(source)
	if err != nil {
		return err
	}
	defer input.Close()
	facts, err := input.Stat()
	if err != nil {
		return err
	}
	size := facts.Size() - sha256.Size
	if size <= 0 || size%512 != 0 {
		return fmt.Errorf("the snapshot is cut off: %d bytes", facts.Size())
	}
	output, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	hash := sha256.New()
	if _, err = io.CopyN(io.MultiWriter(output, hash), input, size); err != nil {
		return err
	}
	end := make([]byte, sha256.Size)
	if _, err = io.ReadFull(input, end); err != nil {
		return err
	}
	if !bytes.Equal(end, hash.Sum(nil)) {
		return errors.New("the snapshot is damaged: its checksum is another one")
	}
	return output.Close()
}

func leases(storage backend.Backend) map[int64]bool {
	known := map[int64]bool{}
	transaction := storage.BatchTx()
	transaction.LockOutsideApply()
	defer transaction.Unlock()
	schema.UnsafeCreateLeaseBucket(transaction)
	for _, found := range schema.MustUnsafeGetAllLeases(transaction) {
		known[found.ID] = true
	}
	return known
}

// grant writes down the leases that a revision attaches and that are not known yet.
func grant(storage backend.Backend, known map[int64]bool, next revision) {
	for _, change := range next.Events {
		if change.Lease == 0 || known[change.Lease] {
			continue
		}
		life, found := next.Leases[change.Lease]
		if !found || life <= 0 {
			life = unknownLease
		}
		transaction := storage.BatchTx()
		transaction.LockOutsideApply()
		schema.MustUnsafePutLease(transaction, &leasepb.Lease{ID: change.Lease, TTL: life, RemainingTTL: life})
		transaction.Unlock()
		known[change.Lease] = true
	}
}

// eachKey calls with every key of a range as it is now, in order, in pages.
func eachKey(store mvcc.KV, first, end []byte, use func(*mvccpb.KeyValue) error) error {
	now := store.Rev()
	for {
		found, err := store.Range(context.Background(), first, end, mvcc.RangeOptions{Limit: page, Rev: now})
		if err != nil {
			return err
		}
		for index := range found.KVs {
			if err = use(found.KVs[index]); err != nil {
				return err
			}
		}
		if len(found.KVs) < page {
			return nil
		}
		first = append(bytes.Clone(found.KVs[len(found.KVs)-1].Key), 0)
	}
}

// add puts all that etcd tells of a key into a hash.
func add(hash io.Writer, entry *mvccpb.KeyValue) {
	numbers := []int64{
		int64(len(entry.Key)), int64(len(entry.Value)),
		entry.CreateRevision, entry.ModRevision, entry.Version, entry.Lease,
	}
	for _, number := range numbers {
		_ = binary.Write(hash, binary.BigEndian, number)
	}
	_, _ = hash.Write(entry.Key)
	_, _ = hash.Write(entry.Value)
}

// reseal encrypts values anew that a key encrypted which the result's API server will not have.
func reseal(store mvcc.KV, wanted plan) (int, error) {
	key, err := sized(wanted.SealKey)
	if err != nil {
		return 0, fmt.Errorf("the key %q: %w", wanted.Seal, err)
	}
	type change struct {
		key, value []byte
		lease      lease.LeaseID
	}
	var changes []change
	err = eachKey(store, []byte{0}, []byte{}, func(entry *mvccpb.KeyValue) error {
		rest, found := bytes.CutPrefix(entry.Value, []byte(sealed))
		if !found {
			return nil
		}
		name, box, found := bytes.Cut(rest, []byte(":"))
		if !found {
			return nil
		}
		candidate := wanted.Keys[string(name)]
		if string(name) == wanted.Seal && bytes.Equal(candidate, wanted.SealKey) {
			return nil
		}
		old, err := sized(candidate)
		if err != nil {
			return fmt.Errorf("%s is encrypted with the key %q: %w", entry.Key, name, err)
		}
		if len(box) < 24 {
			return fmt.Errorf("%s is cut off", entry.Key)
		}
		plain, opened := secretbox.Open(nil, box[24:], (*[24]byte)(box[:24]), old)
		if !opened {
			return fmt.Errorf("%s cannot be decrypted with the key %q", entry.Key, name)
		}
		var nonce [24]byte
		if _, err = rand.Read(nonce[:]); err != nil {
			return err
		}
		value := append([]byte(sealed+wanted.Seal+":"), nonce[:]...)
		value = secretbox.Seal(value, plain, &nonce, key)
		changes = append(changes, change{bytes.Clone(entry.Key), value, lease.LeaseID(entry.Lease)})
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, one := range changes {
		transaction := store.Write(traceutil.TODO())
		transaction.Put(one.key, one.value, one.lease)
		transaction.End()
	}
	return len(changes), nil
}

func sized(key []byte) (*[32]byte, error) {
	if len(key) != 32 {
		return nil, errors.New("the backup has no such key")
	}
	return (*[32]byte)(key), nil
}

// serve starts an etcd on the data folder, reads everything from it, and ends it again.
func serve(data, name, peer, token string) (string, error) {
	configuration := embed.NewConfig()
	configuration.Dir = data
	configuration.Name = name
	configuration.Logger = "zap"
	configuration.LogLevel = "panic"
	configuration.LogOutputs = []string{"/dev/null"}
	configuration.InitialCluster = name + "=" + peer
	configuration.InitialClusterToken = token
	advertised, err := url.Parse(peer)
	if err != nil {
		return "", err
	}
	configuration.AdvertisePeerUrls = []url.URL{*advertised}
	// Nobody else can reach it: it listens at sockets in a folder of ours.
	folder, err := os.MkdirTemp("", "etcd-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	clients := url.URL{Scheme: "unix", Path: filepath.Join(folder, "c")}
	configuration.ListenClientUrls = []url.URL{clients}
	configuration.AdvertiseClientUrls = []url.URL{clients}
	configuration.ListenPeerUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(folder, "p")}}
	server, err := embed.StartEtcd(configuration)
	if err != nil {
		return "", fmt.Errorf("no etcd starts on the restored data: %w", err)
	}
	// Not with grace: nobody has a connection to it, and its Close may wait a minute for its own to itself.
	defer server.Server.HardStop()
	select {
	case <-server.Server.ReadyNotify():
	case err = <-server.Err():
		return "", err
	case <-time.After(startLimit):
		return "", errors.New("the etcd on the restored data does not become ready")
	}
	client := v3client.New(server.Server)
	defer client.Close()
	hash := sha256.New()
	first := "\x00"
	for {
		limit, cancel := context.WithTimeout(context.Background(), startLimit)
		found, err := client.Get(limit, first, clientv3.WithFromKey(), clientv3.WithLimit(page))
		cancel()
		if err != nil {
			return "", err
		}
		for _, entry := range found.Kvs {
			add(hash, entry)
		}
		if !found.More {
			return hex.EncodeToString(hash.Sum(nil)), nil
		}
		first = string(found.Kvs[len(found.Kvs)-1].Key) + "\x00"
	}
}
