package main

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// anyone stands for every user in --allow-uid.
const anyone = "any"

// userID reads a user's name or number.
func userID(text string) (uint32, error) {
	return numericID(text, "user", "uid", func() (string, error) {
		u, err := user.Lookup(text)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// groupID reads a group's name or number.
func groupID(text string) (uint32, error) {
	return numericID(text, "group", "gid", func() (string, error) {
		g, err := user.LookupGroup(text)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func numericID(text, kind, number string, lookUp func() (string, error)) (uint32, error) {
	if id, err := strconv.ParseUint(text, 10, 32); err == nil && id < 1<<32-1 {
		return uint32(id), nil
	}
	found, err := lookUp()
	var noUser user.UnknownUserError
	var noGroup user.UnknownGroupError
	switch {
	case errors.As(err, &noUser) || errors.As(err, &noGroup):
		return 0, fmt.Errorf("%q is no %s of this machine: want a name that it knows, or a %s", text, kind, number)
	case err != nil:
		return 0, fmt.Errorf("%q cannot be looked up as a %s: %w", text, kind, err)
	}
	id, err := strconv.ParseUint(found, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q has no %s: %w", text, number, err)
	}
	return uint32(id), nil
}

// allowUIDValue fills the list of users, or says that all are allowed.
func allowUIDValue(uids *[]uint32, all *bool) value {
	return value{
		many: true,
		set: func(text string) error {
			names := splitNames(text)
			*all = slices.Contains(names, anyone)
			names = slices.DeleteFunc(names, func(name string) bool { return name == anyone })
			ids, err := readIDs(names, userID)
			*uids = ids
			return err
		},
		show: func() string {
			if *all {
				return strings.Join(append(showIDs(*uids), anyone), ",")
			}
			return strings.Join(showIDs(*uids), ",")
		},
	}
}

func allowGIDValue(gids *[]uint32) value {
	v := fieldValue(gids, func(text string) ([]uint32, error) { return readIDs(splitNames(text), groupID) },
		func(ids []uint32) string { return strings.Join(showIDs(ids), ",") })
	v.many = true
	return v
}

// splitNames takes a list apart at its commas. Empty text is no name at all.
func splitNames(text string) []string {
	if text == "" {
		return nil
	}
	names := strings.Split(text, ",")
	for i := range names {
		names[i] = strings.TrimSpace(names[i])
	}
	return names
}

// readIDs reads every name, and joins the errors of those that cannot be read.
func readIDs(names []string, read func(string) (uint32, error)) (ids []uint32, err error) {
	for _, name := range names {
		id, idErr := read(name)
		if idErr != nil {
			err = errors.Join(err, idErr)
			continue
		}
		ids = append(ids, id)
	}
	return ids, err
}

func showIDs(ids []uint32) []string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.FormatUint(uint64(id), 10)
	}
	return texts
}
