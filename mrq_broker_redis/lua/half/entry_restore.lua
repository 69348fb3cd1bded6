-- needs: base, recounting, batch, slots, uniques, entries, places
-- Gives entries the places that they have lost: their hashes are there, but claims do not find them.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers the ids of the entries that got their place.

-- row: the fields in the order of ENTRY_FIELDS.
local function has_place(id, row)
  local queue, rank, token, packed, state = row[1], row[2] or '0', row[6], row[7], row[11]
  if token then
    return has_member(claimed_line(queue), id)
  elseif state == 'p' then
    return is_parked(id, packed)
  end
  return is_waiting(id, queue, rank)
end

local restored = {}
for _, id in ipairs(given) do
  local key = entry_key(id)
  local row = try('HMGET', key, unpack(ENTRY_FIELDS))
  if is_whole(row) then
    local queue, rank, due, token = row[1], row[2] or '0', row[3], row[6]
    if not has_place(id, row) then
      restored[#restored + 1] = id
      if token then
        add_later(claimed_line(queue), due, id)
      else
        if row[11] == 'p' then -- the next claim parks it again, if it has to
          end_parking(id, queue)
          due = digits(now)
          call('HSET', key, 'z', 'w', 'd', due)
        end
        restore_waiting(id, queue, rank, due)
      end
    end
    note_entry(queue, rank)
  end
end
flush_places()
return restored
