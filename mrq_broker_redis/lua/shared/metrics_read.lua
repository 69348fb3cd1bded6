-- needs: base
-- Reads about `limit` cells of hashes, in the order of the hashes; see metrics_record.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { resolution, { "<slot>:<name>", ... }, cursor of HSCAN in the first hash, limit }
-- Answers { number of hashes that were read to their end, cursor in the next hash, cells }. The cells are msgpack:
-- [[hash, tags, cell], ...], and hashes count from 0.

local resolution, members, cursor, limit = unpack(given)
local parts, number, done = {}, 0, 0
while members[done + 1] and number < limit do
  local scanned = call('HSCAN', K .. 'm:' .. resolution .. ':' .. members[done + 1], cursor, 'COUNT', limit)
  cursor = scanned[1]
  local hash = cmsgpack.pack(done)
  local cells = scanned[2]
  for at = 1, #cells, 2 do
    number = number + 1
    parts[number] = '\147' .. hash .. cmsgpack.pack(cells[at]) .. cells[at + 1]
  end
  if cursor == '0' then
    done = done + 1
  end
end
local size = string.char(0xdd, 0, math.floor(number / 65536), math.floor(number / 256) % 256, number % 256)
return { done, cursor, size .. table.concat(parts) }
