// Package sctp takes the place of github.com/ishidawataru/sctp in the test server, for kernels without sockets of SCTP: it
// sends and receives real SCTP packets (RFC 9260) through raw sockets, so that the kernel routes, tracks and filters
// them as any others. It has what the test server calls, and one stream; it does without congestion control, fragments and
// several addresses, which a test on one machine doesn't need.
package sctp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// SCTPAddr is an address and a port.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

// Network returns the name of the protocol.
func (a *SCTPAddr) Network() string { return "sctp" }

// String returns address and port as they are written.
func (a *SCTPAddr) String() string {
	if len(a.IPAddrs) == 0 {
		return fmt.Sprintf(":%d", a.Port)
	}
	return net.JoinHostPort(a.IPAddrs[0].String(), fmt.Sprint(a.Port))
}

// ResolveSCTPAddr resolves an address of the form host:port.
func ResolveSCTPAddr(network, address string) (*SCTPAddr, error) {
	// Hosts and ports are written and found as those of TCP.
	tcp, err := net.ResolveTCPAddr("tcp"+network[len("sctp"):], address)
	if err != nil {
		return nil, err
	}
	resolved := &SCTPAddr{Port: tcp.Port}
	if tcp.IP != nil {
		resolved.IPAddrs = []net.IPAddr{{IP: tcp.IP, Zone: tcp.Zone}}
	}
	return resolved, nil
}

// Types of chunks.
const (
	chunkData       = 0
	chunkInit       = 1
	chunkInitAck    = 2
	chunkSack       = 3
	chunkAbort      = 6
	chunkCookieEcho = 10
	chunkCookieAck  = 11
)

const (
	parameterCookie = 7
	// The first and the last fragment: the whole message.
	wholeMessage = 3
	window       = 1 << 16
	// How long to wait for an answer before a chunk is sent again, and how often it is sent.
	resendAfter = 500 * time.Millisecond
	attempts    = 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type packet struct {
	from, to uint16
	tag      uint32
	chunks   []chunk
}

type chunk struct {
	kind, flags byte
	value       []byte
}

func (p packet) encode() []byte {
	out := make([]byte, 12)
	binary.BigEndian.PutUint16(out[0:], p.from)
	binary.BigEndian.PutUint16(out[2:], p.to)
	binary.BigEndian.PutUint32(out[4:], p.tag)
	for _, c := range p.chunks {
		out = append(out, c.kind, c.flags)
		out = binary.BigEndian.AppendUint16(out, uint16(4+len(c.value)))
		out = append(out, c.value...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	binary.LittleEndian.PutUint32(out[8:], crc32.Checksum(out, castagnoli))
	return out
}

func decode(bytes []byte) (p packet, ok bool) {
	if len(bytes) < 12 {
		return p, false
	}
	sum := binary.LittleEndian.Uint32(bytes[8:])
	copied := append([]byte(nil), bytes...)
	binary.LittleEndian.PutUint32(copied[8:], 0)
	if crc32.Checksum(copied, castagnoli) != sum {
		return p, false
	}
	p.from, p.to = binary.BigEndian.Uint16(copied[0:]), binary.BigEndian.Uint16(copied[2:])
	p.tag = binary.BigEndian.Uint32(copied[4:])
	for rest := copied[12:]; len(rest) >= 4; {
		length := int(binary.BigEndian.Uint16(rest[2:]))
		if length < 4 || length > len(rest) {
			return p, false
		}
		p.chunks = append(p.chunks, chunk{rest[0], rest[1], rest[4:length]})
		rest = rest[min((length+3)&^3, len(rest)):]
	}
	return p, true
}

// The value of an INIT or INIT ACK: tag, window, one stream in each direction, the first number of a message, parameters.
func initiation(tag, number uint32, parameters []byte) []byte {
	value := binary.BigEndian.AppendUint32(nil, tag)
	value = binary.BigEndian.AppendUint32(value, window)
	value = append(value, 0, 1, 0, 1)
	value = binary.BigEndian.AppendUint32(value, number)
	return append(value, parameters...)
}

func cookieIn(parameters []byte) []byte {
	for len(parameters) >= 4 {
		length := int(binary.BigEndian.Uint16(parameters[2:]))
		if length < 4 || length > len(parameters) {
			return nil
		}
		if binary.BigEndian.Uint16(parameters) == parameterCookie {
			return parameters[4:length]
		}
		parameters = parameters[min((length+3)&^3, len(parameters)):]
	}
	return nil
}

// SCTPConn is an association.
type SCTPConn struct {
	send          func([]byte) error
	local, remote uint16
	// What the peer wants to see in our packets, and we in its packets.
	theirTag, ourTag uint32
	peer             *SCTPAddr
	closed           func()

	mutex    sync.Mutex
	changed  *sync.Cond
	next     uint32 // number of our next message
	sequence uint16
	unacked  map[uint32]chunk
	expected uint32 // number of the peer's next message
	received [][]byte
	over     bool
	until    time.Time
}

func newConn(send func([]byte) error, local, remote uint16, ourTag, theirTag, ourNumber, theirNumber uint32) *SCTPConn {
	c := &SCTPConn{
		send: send, local: local, remote: remote, ourTag: ourTag, theirTag: theirTag, closed: func() {},
		next: ourNumber, expected: theirNumber, unacked: map[uint32]chunk{},
	}
	c.changed = sync.NewCond(&c.mutex)
	return c
}

func (c *SCTPConn) transmit(chunks ...chunk) error {
	return c.send(packet{c.local, c.remote, c.theirTag, chunks}.encode())
}

// take handles the chunks of a packet of an association that stands.
func (c *SCTPConn) take(chunks []chunk) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, chunk := range chunks {
		switch {
		case chunk.kind == chunkData && len(chunk.value) >= 12:
			if number := binary.BigEndian.Uint32(chunk.value); number == c.expected {
				c.expected++
				c.received = append(c.received, append([]byte(nil), chunk.value[12:]...))
			}
			// What came before is acknowledged again: the first acknowledgement may be lost.
			sack := binary.BigEndian.AppendUint32(nil, c.expected-1)
			sack = binary.BigEndian.AppendUint32(sack, window)
			_ = c.transmit(chunkOf(chunkSack, append(sack, 0, 0, 0, 0)))
		case chunk.kind == chunkSack && len(chunk.value) >= 4:
			acked := binary.BigEndian.Uint32(chunk.value)
			for number := range c.unacked {
				if int32(number-acked) <= 0 {
					delete(c.unacked, number)
				}
			}
		case chunk.kind == chunkAbort:
			c.over = true
		}
	}
	c.changed.Broadcast()
}

func chunkOf(kind byte, value []byte) chunk { return chunk{kind: kind, value: value} }

// Write sends a message, again and again until it is acknowledged.
func (c *SCTPConn) Write(message []byte) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.over {
		// The peer may have ended it while this was on its way.
		return len(message), nil
	}
	value := binary.BigEndian.AppendUint32(nil, c.next)
	value = append(value, 0, 0)
	value = binary.BigEndian.AppendUint16(value, c.sequence)
	value = append(append(value, 0, 0, 0, 0), message...)
	number, data := c.next, chunk{chunkData, wholeMessage, value}
	c.next++
	c.sequence++
	c.unacked[number] = data
	if err := c.transmit(data); err != nil {
		return 0, err
	}
	go func() {
		for range attempts {
			time.Sleep(resendAfter)
			c.mutex.Lock()
			_, waiting := c.unacked[number]
			if !waiting || c.over {
				c.mutex.Unlock()
				return
			}
			_ = c.transmit(data)
			c.mutex.Unlock()
		}
	}()
	return len(message), nil
}

// Read returns a message, or what of it has room.
func (c *SCTPConn) Read(into []byte) (int, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for len(c.received) == 0 {
		if c.over {
			return 0, io.EOF
		}
		if !c.until.IsZero() && !time.Now().Before(c.until) {
			return 0, os.ErrDeadlineExceeded
		}
		c.changed.Wait()
	}
	message := c.received[0]
	c.received = c.received[1:]
	return copy(into, message), nil
}

// SetReadDeadline limits how long Read waits.
func (c *SCTPConn) SetReadDeadline(until time.Time) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.until = until
	time.AfterFunc(time.Until(until), c.changed.Broadcast)
	return nil
}

// SCTPRemoteAddr returns the peer's address.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) { return c.peer, nil }

// Close ends the association, when the peer has acknowledged everything or some time has passed.
func (c *SCTPConn) Close() error {
	timer := time.AfterFunc(resendAfter*attempts, func() {
		c.mutex.Lock()
		c.unacked = map[uint32]chunk{}
		c.mutex.Unlock()
		c.changed.Broadcast()
	})
	defer timer.Stop()
	c.mutex.Lock()
	for len(c.unacked) > 0 && !c.over {
		c.changed.Wait()
	}
	if !c.over {
		c.over = true
		_ = c.transmit(chunkOf(chunkAbort, nil))
	}
	c.mutex.Unlock()
	c.changed.Broadcast()
	c.closed()
	return nil
}

// DialSCTP establishes an association.
func DialSCTP(_ string, _, to *SCTPAddr) (*SCTPConn, error) {
	if len(to.IPAddrs) == 0 {
		return nil, errors.New("no address to connect to")
	}
	socket, err := net.DialIP("ip:132", nil, &to.IPAddrs[0])
	if err != nil {
		return nil, err
	}
	local, remote := uint16(32768+rand.IntN(28000)), uint16(to.Port)
	tag, number := rand.Uint32()|1, rand.Uint32()
	send := func(bytes []byte) error {
		_, err := socket.Write(bytes)
		return err
	}
	packets := make(chan packet, 16)
	go func() {
		defer close(packets)
		buffer := make([]byte, 1<<16)
		for {
			length, _, err := socket.ReadFrom(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// An error of ICMP is no answer: the packet is sent again.
			if p, ok := decode(buffer[:length]); err == nil && ok && p.from == remote && p.to == local && p.tag == tag {
				packets <- p
			}
		}
	}()
	// exchange sends a chunk until one of another kind comes back.
	exchange := func(peer uint32, request chunk, answer byte) ([]byte, []chunk, error) {
		for range attempts {
			if err := send(packet{local, remote, peer, []chunk{request}}.encode()); err != nil {
				return nil, nil, err
			}
			timeout := time.After(resendAfter)
			for waiting := true; waiting; {
				select {
				case p := <-packets:
					for i, c := range p.chunks {
						if c.kind == answer {
							return c.value, p.chunks[i+1:], nil
						} else if c.kind == chunkAbort {
							return nil, nil, errors.New("connection refused")
						}
					}
				case <-timeout:
					waiting = false
				}
			}
		}
		return nil, nil, errors.New("no answer")
	}
	fail := func(err error) (*SCTPConn, error) {
		socket.Close()
		for range packets {
		}
		return nil, err
	}
	answer, _, err := exchange(0, chunkOf(chunkInit, initiation(tag, number, nil)), chunkInitAck)
	if err != nil {
		return fail(err)
	}
	if len(answer) < 16 {
		return fail(errors.New("an answer that is too short"))
	}
	peer := binary.BigEndian.Uint32(answer)
	_, more, err := exchange(peer, chunkOf(chunkCookieEcho, cookieIn(answer[16:])), chunkCookieAck)
	if err != nil {
		return fail(err)
	}
	conn := newConn(send, local, remote, tag, peer, number, binary.BigEndian.Uint32(answer[12:]))
	conn.peer, conn.closed = to, func() { socket.Close() }
	conn.take(more)
	go func() {
		for p := range packets {
			conn.take(p.chunks)
		}
	}()
	return conn, nil
}

// SCTPListener accepts associations.
type SCTPListener struct {
	port     uint16
	sockets  []*net.IPConn
	accepted chan *SCTPConn
	mutex    sync.Mutex
	peers    map[string]*SCTPConn
}

// ListenSCTP listens on a port, of both families where no address is given.
func ListenSCTP(_ string, on *SCTPAddr) (*SCTPListener, error) {
	l := &SCTPListener{port: uint16(on.Port), accepted: make(chan *SCTPConn, 16), peers: map[string]*SCTPConn{}}
	var refused error
	for _, network := range []string{"ip4:132", "ip6:132"} {
		var address *net.IPAddr
		if len(on.IPAddrs) > 0 && !on.IPAddrs[0].IP.IsUnspecified() {
			address = &on.IPAddrs[0]
		}
		socket, err := net.ListenIP(network, address)
		if err != nil {
			refused = err
			continue
		}
		l.sockets = append(l.sockets, socket)
		go l.serve(socket)
	}
	if len(l.sockets) == 0 {
		return nil, refused
	}
	return l, nil
}

func (l *SCTPListener) serve(socket *net.IPConn) {
	buffer := make([]byte, 1<<16)
	for {
		length, from, err := socket.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Every raw socket receives the packets of all ports.
		if p, ok := decode(buffer[:length]); err == nil && ok && p.to == l.port {
			l.handle(p, func(bytes []byte) error {
				_, err := socket.WriteTo(bytes, from)
				return err
			}, &SCTPAddr{[]net.IPAddr{*from.(*net.IPAddr)}, int(p.from)})
		}
	}
}

func (l *SCTPListener) handle(p packet, send func([]byte) error, from *SCTPAddr) {
	if len(p.chunks) == 0 {
		return
	}
	peer := from.String()
	switch first := p.chunks[0]; {
	case first.kind == chunkInit && len(first.value) >= 16:
		// All that the association will need is in the cookie, as the protocol has it: nothing is kept until it returns.
		tag, number := rand.Uint32()|1, rand.Uint32()
		theirs := binary.BigEndian.Uint32(first.value)
		cookie := binary.BigEndian.AppendUint16(nil, parameterCookie)
		cookie = binary.BigEndian.AppendUint16(cookie, 4+16)
		for _, word := range []uint32{tag, number, theirs, binary.BigEndian.Uint32(first.value[12:])} {
			cookie = binary.BigEndian.AppendUint32(cookie, word)
		}
		answer := chunkOf(chunkInitAck, initiation(tag, number, cookie))
		_ = send(packet{l.port, p.from, theirs, []chunk{answer}}.encode())
	case first.kind == chunkCookieEcho && len(first.value) == 16:
		word := func(i int) uint32 { return binary.BigEndian.Uint32(first.value[4*i:]) }
		if p.tag != word(0) {
			return
		}
		l.mutex.Lock()
		conn := l.peers[peer]
		fresh := conn == nil || conn.ourTag != p.tag
		if fresh {
			conn = newConn(send, l.port, p.from, word(0), word(2), word(1), word(3))
			conn.peer, conn.closed = from, func() { l.forget(peer, conn) }
			l.peers[peer] = conn
		}
		l.mutex.Unlock()
		_ = conn.transmit(chunkOf(chunkCookieAck, nil))
		conn.take(p.chunks[1:])
		if fresh {
			l.accepted <- conn
		}
	default:
		l.mutex.Lock()
		conn := l.peers[peer]
		l.mutex.Unlock()
		if conn != nil && conn.ourTag == p.tag {
			conn.take(p.chunks)
		}
	}
}

func (l *SCTPListener) forget(peer string, conn *SCTPConn) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.peers[peer] == conn {
		delete(l.peers, peer)
	}
}

// AcceptSCTP returns the next association.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	conn, ok := <-l.accepted
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

// Close ends the listener. Associations continue until they are closed, but receive nothing more.
func (l *SCTPListener) Close() error {
	for _, socket := range l.sockets {
		socket.Close()
	}
	return nil
}
