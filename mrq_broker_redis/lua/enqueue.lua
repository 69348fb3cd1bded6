-- needs: base, batch, limits, jobs
-- Stores new jobs. Arguments: { { kind, ... }, { job, ... } }.
--   kind: { status, queue, path, rank }, what many plain jobs have in common
--   job: { id, kind's number, data, due or false, queued at, delay in ms or false }, or one of enqueue() in jobs
-- Answers { id now queued, 1 if new, ... }.

-- What is gathered of the jobs of a kind: their number, their places in the line, and their members of the indexes,
-- which are the same in each.
local function prepared(kind)
  note_rank(kind[4])
  return {
    status = kind[1], queue = kind[2], path = kind[3], rank = kind[4] ~= '0' and kind[4] or nil,
    line = waiting_line(kind[2], kind[4]), number = 0, places = {}, members = {},
  }
end

local kinds, answers = {}, {}
local now_text = digits(now)

local function write_plain()
  for _, kind in pairs(kinds) do
    in_parts('ZADD', kind.line, kind.places)
    in_parts('ZADD', status_index(kind.status), kind.members)
    in_parts('ZADD', index_of('q', kind.queue), kind.members)
    in_parts('ZADD', index_of('h', kind.path), kind.members)
    add_later(K .. 'queues', 0, kind.queue)
    count_later(kind.queue, kind.path, kind.status, kind.number)
    touch(kind.queue)
  end
  kinds = {}
  flush()
end

local function enqueue_plain(job)
  local id, data, due, delay = job[1], job[3], job[4], job[6]
  if call('SETNX', data_of(id), data) == 0 then
    write_plain()
    if not make_room_for(id) then
      return 0
    end
    call('SET', data_of(id), data)
  end
  local kind = kinds[job[2]]
  if not kind then
    kind = prepared(given[1][job[2]])
    kinds[job[2]] = kind
  end
  due = delay and digits(now + delay) or due or now_text
  if kind.rank then
    call('HSET', key_of(id), 's', kind.status, 'q', kind.queue, 'h', kind.path, 'd', due, 'Q', job[5], 'k', kind.rank)
  else
    call('HSET', key_of(id), 's', kind.status, 'q', kind.queue, 'h', kind.path, 'd', due, 'Q', job[5])
  end
  local number, places, members = kind.number + 1, kind.places, kind.members
  places[2 * number - 1], places[2 * number] = due, id
  members[2 * number - 1], members[2 * number] = '0', id
  kind.number = number
  if number <= WAKE_MOST then
    wake(kind.queue, due)
  end
  return 1
end

for _, job in ipairs(given[2]) do
  local id, created = job[1], nil
  if type(job[2]) == 'number' then
    created = enqueue_plain(job)
  else
    write_plain()
    id, created = enqueue(job)
    created = created and 1 or 0
  end
  answers[#answers + 1] = id
  answers[#answers + 1] = created
end
write_plain()
return answers
