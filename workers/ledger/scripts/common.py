"""The prelude of all Lua scripts of the ledger. ``ARGV[1]`` is always the key prefix; one Redis, no cluster.

Times are Redis's own, in seconds, so that workers with different clocks agree on when a lease expires. A job is *known*
while its facts are kept, *live* while it is open or paused, and *open* while it is in the queue of its tenant.
"""

from __future__ import annotations

COMMON = """
local P = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- What somebody else may have written is read so far and no further.
local function short(text) return string.sub(text or '', 1, 8192) end

local function live(job)
  local state = redis.call('HGET', P .. 'job:' .. job, 'state')
  return state == 'open' or state == 'paused'
end

local function holds(job, shard, nonce)
  return redis.call('HGET', P .. 'nonce:' .. job, shard) == nonce and live(job)
end

local function forget(job, shard)
  redis.call('ZREM', P .. 'lease:' .. job, shard)
  redis.call('HDEL', P .. 'nonce:' .. job, shard)
  redis.call('HDEL', P .. 'made:' .. job, shard)
end

local function limits(tenant)
  local text = redis.call('HGET', P .. 'shares', tenant) or redis.call('HGET', P .. 'shares', '*')
  return text and cjson.decode(text) or {}
end

local function running(tenant)
  local count = 0
  for _, job in ipairs(redis.call('ZRANGE', P .. 'queue:' .. tenant, 0, -1)) do
    count = count + redis.call('HLEN', P .. 'nonce:' .. job)
  end
  return count
end

-- The place of a job in its tenant's queue: the higher priority first, then who was served longest ago.
local function place(priority, turn)
  return (100 - tonumber(priority)) * 1099511627776 + tonumber(turn)
end

local function done(job) return redis.call('BITCOUNT', P .. 'done:' .. job) end

local function standing(job)
  local total = tonumber(redis.call('HGET', P .. 'job:' .. job, 'shards') or '0')
  local finished, dead = done(job), redis.call('SCARD', P .. 'dead:' .. job)
  return total - finished - dead - redis.call('ZCARD', P .. 'lease:' .. job), finished, dead, total
end
"""
