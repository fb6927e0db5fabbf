package firewall

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// netlinkTimeout bounds one question to nf_tables, which the kernel answers in microseconds unless a huge transaction
// holds its lock.
const netlinkTimeout = 5 * time.Second

// dumpAttempts is how often a dump that a concurrent change cut is begun again.
const dumpAttempts = 10

// nfgenmsgLength is the size of struct nfgenmsg (linux/netfilter/nfnetlink.h): family, version, resource id.
const nfgenmsgLength = 4

// messageFamily is where decodeMessage leaves the family of a message: attributes have types of 14 bits (NLA_TYPE_MASK).
const messageFamily = 0xffff

// attributes are the top-level attributes of one message.
type attributes map[uint16][]byte

// nftReader asks nf_tables over one lasting netlink socket.
type nftReader struct {
	conn *netlink.Conn
}

// get asks for objects of one family. An unknown table or set gives an error that is ENOENT.
func (r *nftReader) get(ctx context.Context, family byte, what uint16, dump bool, filter ...netlink.Attribute) ([]attributes, error) {
	for attempt := 0; ; attempt++ {
		out, err := r.getOnce(ctx, family, what, dump, filter)
		if errors.Is(err, unix.EINTR) && attempt < dumpAttempts {
			continue
		}
		return out, err
	}
}

func (r *nftReader) getOnce(ctx context.Context, family byte, what uint16, dump bool, filter []netlink.Attribute) ([]attributes, error) {
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	body, err := netlink.MarshalAttributes(filter)
	if err != nil {
		return nil, fmt.Errorf("encode a question to nf_tables: %w", err)
	}
	request := netlink.Message{
		Header: netlink.Header{Type: nftType(what), Flags: netlink.Request},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, body...),
	}
	if dump {
		request.Header.Flags |= netlink.Dump
	}
	answers, err := r.conn.Execute(request)
	if err != nil {
		// A lost or late answer would be taken for that of the next question: begin with a new socket.
		if !errors.Is(err, unix.ENOENT) {
			err = errors.Join(err, r.conn.Close())
			r.conn = nil
		}
		return nil, fmt.Errorf("nf_tables message %d: %w", what, err)
	}
	out := make([]attributes, 0, len(answers))
	for _, a := range answers {
		if a.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, fmt.Errorf("nf_tables message %d: %w", what, unix.EINTR)
		}
		if a.Header.Type == netlink.Done {
			continue
		}
		attrs, err := decodeMessage(a.Data)
		if err != nil {
			return nil, fmt.Errorf("nf_tables message %d: %w", what, err)
		}
		out = append(out, attrs)
	}
	return out, nil
}

func (r *nftReader) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.conn == nil {
		conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
		if err != nil {
			return fmt.Errorf("open a netlink socket: %w", err)
		}
		r.conn = conn
	}
	deadline := time.Now().Add(netlinkTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := r.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("set a deadline on the netlink socket: %w", err)
	}
	return nil
}

// generation is the number of the last transaction that anybody committed in this network namespace.
func (r *nftReader) generation(ctx context.Context) (uint32, error) {
	answers, err := r.get(ctx, unix.AF_UNSPEC, unix.NFT_MSG_GETGEN, false)
	if err != nil {
		return 0, err
	}
	if len(answers) != 1 || len(answers[0][unix.NFTA_GEN_ID]) != 4 {
		return 0, fmt.Errorf("nf_tables tells no generation: %v", answers)
	}
	return binary.BigEndian.Uint32(answers[0][unix.NFTA_GEN_ID]), nil
}

// elements gives keys and values of one of our sets.
func (r *nftReader) elements(ctx context.Context, set *nftables.Set) ([]nftables.SetElement, error) {
	answers, err := r.get(ctx, byte(set.Table.Family), unix.NFT_MSG_GETSETELEM, true,
		attrString(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name), attrString(unix.NFTA_SET_ELEM_LIST_SET, set.Name))
	if err != nil {
		return nil, err
	}
	var out []nftables.SetElement
	for _, a := range answers {
		list, err := decodeElements(a[unix.NFTA_SET_ELEM_LIST_ELEMENTS])
		if err != nil {
			return nil, fmt.Errorf("elements of %s: %w", set.Name, err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// decodeElements decodes the list of elements of an nf_tables message. Each vif has some of them, and all are read each
// time one comes, so it makes no map for each as decodeAttributes does.
func decodeElements(list []byte) ([]nftables.SetElement, error) {
	var out []nftables.SetElement
	err := eachAttribute(list, func(_ uint16, item []byte) error {
		var element nftables.SetElement
		err := eachAttribute(item, func(kind uint16, data []byte) error {
			into := &element.Key
			if kind == unix.NFTA_SET_ELEM_DATA {
				into = &element.Val
			} else if kind != unix.NFTA_SET_ELEM_KEY {
				return nil
			}
			return eachAttribute(data, func(kind uint16, value []byte) error {
				if kind == unix.NFTA_DATA_VALUE {
					*into = value
				}
				return nil
			})
		})
		out = append(out, element)
		return err
	})
	return out, err
}

// errAttribute is about an attribute whose length does not fit.
var errAttribute = errors.New("malformed netlink attribute")

// eachAttribute goes through a list of netlink attributes: length, type, value, padded to four bytes.
func eachAttribute(list []byte, visit func(kind uint16, value []byte) error) error {
	const header = 4
	for len(list) > 0 {
		if len(list) < header {
			return errAttribute
		}
		length := int(binary.NativeEndian.Uint16(list))
		if length < header || length > len(list) {
			return errAttribute
		}
		if err := visit(binary.NativeEndian.Uint16(list[2:])&^attributeFlags, list[header:length]); err != nil {
			return err
		}
		list = list[min((length+3)&^3, len(list)):]
	}
	return nil
}

// decodeMessage decodes a netfilter message: struct nfgenmsg, then attributes.
func decodeMessage(data []byte) (attributes, error) {
	if len(data) < nfgenmsgLength {
		return nil, fmt.Errorf("netfilter message of %d bytes", len(data))
	}
	out, err := decodeAttributes(data[nfgenmsgLength:])
	if err == nil {
		out[messageFamily] = data[:1]
	}
	return out, err
}

// attributeFlags are the upper two bits of an attribute's type (NLA_TYPE_MASK).
const attributeFlags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER

func decodeAttributes(data []byte) (attributes, error) {
	out := attributes{}
	err := eachAttribute(data, func(kind uint16, value []byte) error {
		out[kind] = value
		return nil
	})
	return out, err
}

func attrString(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}

// nulTerminated is the text up to the first NUL.
func nulTerminated(data []byte) string {
	text, _, _ := bytes.Cut(data, []byte{0})
	return string(text)
}

// nftType is the netlink type of an nf_tables message.
func nftType(what uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | what)
}
