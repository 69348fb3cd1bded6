-- needs: base, recounting, batch, slots, limits, uniques, terms, records, places
-- Restores the entries of jobs whose keys were evicted or deleted by hand: the hash of a job says which entry it has.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers the ids of the jobs whose entry was restored.

local function has_place(id, row)
  if row.z == 'w' then
    return is_waiting(id, row.q, row.k)
  elseif row.z == 'p' then
    return is_parked(id, row.l)
  end
  local line = line_of(row)
  return not line or has_member(line, id)
end

local repaired = {}
for _, id in ipairs(given) do
  local row = indexed_of(id)
  if row and row.q and row.z ~= '' then
    if not has_place(id, row) then
      repaired[#repaired + 1] = id
      if row.z == 'p' then -- the next claim parks it again, if it has to
        end_parking(id, row.q)
        row.z, row.d = 'w', digits(now)
        call('HSET', key_of(id), 'z', row.z, 'd', row.d)
      end
      if row.z == 'w' then
        restore_waiting(id, row.q, row.k, row.d or digits(now))
      else
        add_later(line_of(row), row.d or digits(now), id)
      end
    end
    note_entry(row.q, row.k)
  end
end
flush_places()
return repaired
